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

# The loads of `services` and `reaction`: programs of their own, without leaktop's objects.
LOAD_CFLAGS := -std=gnu11 -O2 -g -D_GNU_SOURCE $(WARNINGS)
LOAD_CXXFLAGS := -std=c++17 -O2 -g -Wall -Wextra -Werror
LOADS := $(addprefix $(BUILD)/bench/,load_loop load_server load_client load_step load_service)
LOAD_COMMON := $(addprefix $(BUILD)/bench/,load.o latency.o)
LOAD_HEADERS := $(wildcard tests/bench/load*.h) tests/bench/latency.h

$(LOAD_COMMON): $(BUILD)/bench/%.o: tests/bench/%.c $(LOAD_HEADERS)
	$(say) BENCH $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(LOAD_CFLAGS) -c $< -o $@

$(filter-out %/load_service,$(LOADS)): $(BUILD)/bench/%: tests/bench/%.c $(LOAD_COMMON) \
		$(LOAD_HEADERS)
	$(say) BENCH $@
	$(Q)$(CC) $(LOAD_CFLAGS) $< $(LOAD_COMMON) -o $@ -pthread

$(BUILD)/bench/libload_store.so: tests/bench/load_store.cpp tests/bench/load_store.h
	$(say) BENCH $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CXX) $(LOAD_CXXFLAGS) -shared -fPIC $< -o $@

$(BUILD)/bench/load_service: tests/bench/load_service.cpp $(LOAD_COMMON) \
		$(BUILD)/bench/libload_store.so $(LOAD_HEADERS)
	$(say) BENCH $@
	$(Q)$(CXX) $(LOAD_CXXFLAGS) $< $(LOAD_COMMON) -o $@ -L$(@D) -lload_store

#> make bench-services compare services under leaktop and other tracers with untraced ones
.PHONY: bench-services bench-reaction
bench-services: all $(LOADS)
	$(Q)BUILD=$(BUILD) tests/bench/services $(BENCH_OPTIONS)

#> make bench-reaction draw how leaktop follows a load that steps up and down
bench-reaction: all $(BUILD)/bench/load_step
	$(Q)BUILD=$(BUILD) tests/bench/reaction $(BENCH_OPTIONS)
