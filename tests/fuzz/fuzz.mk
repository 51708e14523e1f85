# SPDX-License-Identifier: GPL-2.0-or-later
# Fuzzers of what reads hostile input. Included by the top Makefile.

FUZZ_OUT := $(BUILD)/fuzz
FUZZ_S ?= 600
FUZZERS := cfi unwind proc line_table python_walk
FUZZ_CFLAGS := -O1 -g $(LT_CFLAGS) -Itests/unit -fsanitize=fuzzer,address,undefined \
	       -fno-sanitize-recover=undefined -fno-omit-frame-pointer
FUZZ_HEADERS := $(wildcard include/*.h bpf/*.bpf.h src/unwind/*.h src/target/*.h src/python/*.h \
			  tests/unit/*.h)

.PHONY: fuzz
#> make fuzz          run each fuzzer FUZZ_S seconds (default 600)
fuzz: $(FUZZERS:%=$(FUZZ_OUT)/fuzz_%)
	$(Q)tests/fuzz/run $(FUZZ_OUT) $(FUZZ_S) $(FUZZERS)

$(FUZZ_OUT)/fuzz_%: tests/fuzz/fuzz_%.c $(FUZZ_HEADERS)
	$(say) FUZZ $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) $(filter %.c,$^) -o $@ -lz -lZydis -lZycore

# What they are linked with.
$(FUZZ_OUT)/fuzz_cfi: $(wildcard src/unwind/cfi*.c src/unwind/code_*.c) \
	$(addprefix src/unwind/,rule_set.c eh_frame.c elf_image.c)
$(FUZZ_OUT)/fuzz_proc: $(addprefix src/target/,cgroup.c maps.c mountinfo.c procfs.c text_file.c)
$(FUZZ_OUT)/fuzz_line_table: $(addprefix src/python/,line_table.c code_store.c unicode.c)
$(FUZZ_OUT)/fuzz_python_walk: src/python/layout.c
