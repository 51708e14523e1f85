# SPDX-License-Identifier: GPL-2.0-or-later
# The benchmarks of the unwinder. Included by the top Makefile.

BENCH_TARGETS := $(BUILD)/bench/unwind_target $(BUILD)/bench/unwind_target_fp

$(BUILD)/bench/unwind_target: BENCH_TARGET_CFLAGS := -fomit-frame-pointer
$(BUILD)/bench/unwind_target_fp: BENCH_TARGET_CFLAGS := -fno-omit-frame-pointer
$(BENCH_TARGETS): tests/bench/unwind_target.c
	$(say) BENCH $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -O2 -g -D_GNU_SOURCE $(WARNINGS) $(BENCH_TARGET_CFLAGS) $< -o $@ -pthread

$(BUILD)/bench/%.bpf.o: tests/bench/%.bpf.c tests/bench/%.h
	$(say) BPF $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -MT $@ -MF $(@:.o=.d) -c $< -o $@.tmp
	$(Q)$(BPFTOOL) gen object $@ $@.tmp

$(BUILD)/bench/%.skel.h: $(BUILD)/bench/%.bpf.o
	$(say) SKEL $@
	$(Q)$(BPFTOOL) gen skeleton $< name $*_bpf > $@

$(BUILD)/bench/unwind_cost: tests/bench/unwind_cost.c $(BUILD)/bench/unwind_cost.skel.h \
		$(filter-out $(BUILD)/obj/main.o,$(OBJECTS))
	$(say) BENCH $@
	$(Q)$(CC) $(CFLAGS) $(LT_CFLAGS) -I$(BUILD)/bench $(filter %.c %.o,$^) -o $@ $(LIBS)

#> make bench-unwind  measure the cost of a stack and of the tables
.PHONY: bench-unwind
bench-unwind: $(BENCH_TARGETS) $(BUILD)/bench/unwind_cost $(BUILD)/bench/table_cost
	$(Q)tests/bench/unwind

-include $(BUILD)/bench/unwind_cost.bpf.d
