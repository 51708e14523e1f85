# SPDX-License-Identifier: GPL-2.0-or-later
# leaktop: make, make demo, make check, make install. `make help` lists all.

PREFIX ?= /usr/local
CC ?= gcc
CXX ?= g++
CLANG ?= clang
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool /usr/local/sbin/bpftool) bpftool)
CLANG_FORMAT ?= clang-format
CPPCHECK ?= cppcheck
PYTHON ?= /usr/bin/python3

BUILD := build
VERSION := $(shell cat tools/version)
ARCH := $(shell uname -m | sed 's/x86_64/x86/; s/aarch64/arm64/')

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-8s %s\n'
endif

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	    -Wpointer-arith -Wvla -Wformat=2
CFLAGS ?= -O2 -g
LT_CFLAGS := -std=gnu11 -D_GNU_SOURCE -DLEAKTOP_VERSION='"$(VERSION)"' -Iinclude -Isrc \
	     -I$(BUILD)/bpf $(WARNINGS)
LIBS := -lbpf -ldw -lelf -lz -lZydis -lZycore -liberty -ljansson -lcap-ng -llzma -lm -lpthread -ldl
BPF_CFLAGS := -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_$(ARCH) -Wall -Wextra -Werror \
	      -Ivmlinux -Iinclude -Ibpf
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

SOURCES := $(sort $(wildcard src/*.c src/*/*.c))
LIB_SOURCES := $(filter-out src/main.c,$(SOURCES))
OBJECTS := $(SOURCES:src/%.c=$(BUILD)/obj/%.o)
SAN_OBJECTS := $(LIB_SOURCES:src/%.c=$(BUILD)/san/%.o)
BPF_SOURCES := $(sort $(wildcard bpf/*.bpf.c))
SKELETONS := $(BPF_SOURCES:bpf/%.bpf.c=$(BUILD)/bpf/%.skel.h)
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all help setup demo check unit e2e bench install uninstall format format-check lint clean \
	fixtures soak

all: $(BUILD)/leaktop

help:
	@sed -n 's/^#> //p' $(MAKEFILE_LIST)

#> make               build build/leaktop
$(BUILD)/leaktop: $(OBJECTS)
	$(say) LINK $@
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/bpf/%.bpf.o: bpf/%.bpf.c
	$(say) BPF $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -MT $@ -MF $(@:.o=.d) -c $< -o $@.tmp
	$(Q)$(BPFTOOL) gen object $@ $@.tmp

$(BUILD)/bpf/%.skel.h: $(BUILD)/bpf/%.bpf.o
	$(say) SKEL $@
	$(Q)$(BPFTOOL) gen skeleton $< name $*_bpf > $@

$(BUILD)/obj/%.o: src/%.c tools/version | $(SKELETONS)
	$(say) CC $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LT_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/san/%.o: src/%.c tools/version | $(SKELETONS)
	$(say) CC $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -O1 -g $(LT_CFLAGS) $(SANITIZE) -MMD -MP -c $< -o $@

$(BUILD)/libleaktop-san.a: $(SAN_OBJECTS)
	$(say) AR $@
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/unit/%: tests/unit/%.c $(BUILD)/libleaktop-san.a
	$(say) TEST $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -O1 -g $(LT_CFLAGS) -Itests/unit $(SANITIZE) -MMD -MP $< $(BUILD)/libleaktop-san.a \
		-o $@ $(LIBS) -lcmocka

$(BUILD)/bench/%: tests/bench/%.c $(filter-out $(BUILD)/obj/main.o,$(OBJECTS))
	$(say) BENCH $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LT_CFLAGS) -MMD -MP $^ -o $@ $(LIBS)

-include tests/fixtures/fixtures.mk tests/bench/bench.mk tests/fuzz/fuzz.mk

#> make setup         install with apt what is missing to build and test
setup:
	$(Q)tools/setup

#> make demo          set up, build, find the leak of a bundled daemon
demo: setup
	$(Q)$(MAKE) --no-print-directory all fixtures
	$(Q)tools/demo

#> make check         set up, build, run all tests
check: setup
	$(Q)$(MAKE) --no-print-directory all fixtures
	$(Q)tools/check

#> make unit e2e      one half of the tests, without set-up
unit: $(UNIT_TESTS)
	$(Q)tools/check unit

e2e: all fixtures
	$(Q)tools/check e2e

#> make soak          the overload tests at full length (minutes)
soak: all fixtures
	$(Q)LEAKTOP_SOAK=1 tools/check e2e

#> make bench         measure the cost of tracing, as ratios in one run
bench: all fixtures $(BUILD)/bench/probe_cost
	$(Q)tests/bench/run
	$(Q)BUILD=$(BUILD) tests/bench/python_cost

#> make install       to DESTDIR and PREFIX (default /usr/local); uninstall takes it away
install: all
	install -D -m 755 $(BUILD)/leaktop $(DESTDIR)$(PREFIX)/sbin/leaktop

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/leaktop

#> make format lint   clang-format in place; format check, cppcheck
FORMATTED := $(sort $(wildcard src/*.c src/*.h src/*/*.[ch] include/*.h bpf/*.[ch] tests/*/*.[ch]))
format:
	$(Q)$(CLANG_FORMAT) -i $(FORMATTED)

format-check:
	$(Q)$(CLANG_FORMAT) --dry-run -Werror $(FORMATTED)

lint: format-check $(SKELETONS)
	$(Q)$(CPPCHECK) --quiet --std=c11 --enable=warning,portability,performance \
		--inline-suppr --suppress=missingIncludeSystem --error-exitcode=1 -i tests/unit/images \
		-D__x86_64__ '-DLIBBPF_OPTS(t,n,...)=struct t n' -Iinclude -Isrc src tests/unit

#> make clean
clean:
	rm -rf $(BUILD)

-include $(OBJECTS:.o=.d) $(SAN_OBJECTS:.o=.d) $(UNIT_TESTS:=.d) $(BPF_SOURCES:bpf/%.bpf.c=$(BUILD)/bpf/%.bpf.d)
