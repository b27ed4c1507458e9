/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* cpus= CPUs count together with locked adds; each also reads ports, so that exits of several vCPUs meet on the bus. */
#include "lib/guest.h"

#define ROUNDS 2000

static volatile uint64_t total;
static volatile unsigned finished;

static void work(unsigned cpu)
{
	uint32_t last = inl(0x608);
	for (unsigned i = 0; i < ROUNDS; i++) {
		__atomic_add_fetch(&total, 1, __ATOMIC_SEQ_CST);
		if (i % 100 == 0) {
			uint32_t now = inl(0x608);
			CHECK(now - last < 1u << 30, "CPU %u: the PM timer went back", cpu);
			last = now;
		}
	}
	__atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
}

void guest_main(void)
{
	unsigned cpus = (unsigned)arg_u64("cpus", 2), came = smp_start(cpus - 1, work);

	CHECK(came == cpus - 1, "%u of %u CPUs came", came + 1, cpus);
	work(0);
	for (uint64_t end = now_ns() + 20000000000u; finished < cpus && now_ns() < end;)
		relax();
	CHECK(finished == cpus, "%u of %u CPUs finished", finished, cpus);
	CHECK(total == (uint64_t)cpus * ROUNDS, "counted %lu", total);
	print("smp: ok %u CPUs\n", cpus);
	if (arg_str("end"))
		reboot();
}
