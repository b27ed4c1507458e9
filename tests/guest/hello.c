/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "lib/guest.h"

void guest_main(void)
{
	const char *end = arg_str("end");

	print("hello from ring 3, %lu MiB below 4 GiB, command line: %s\n", memory_below_4g() >> 20, cmdline());
	if (end && !memcmp(end, "reboot", 6))
		reboot();
	if (end && !memcmp(end, "triple", 6))
		triple_fault();
	if (end && !memcmp(end, "panic", 5))
		outb(0x505, 1);
	if (end && !memcmp(end, "kbd", 3))
		outb(0x64, 0xfe);
	if (end && !memcmp(end, "92", 2))
		outb(0x92, 3);
	if (end && !memcmp(end, "hang", 4))
		for (;;)
			relax();
	if (end && !memcmp(end, "echo", 4)) /* serial input comes back until a q */
		for (;;) {
			char c[2] = {0, 0};
			while (!(inb(0x3fd) & 1))
				relax();
			c[0] = (char)inb(0x3f8);
			put(c);
			if (c[0] == 'q')
				break;
		}
}
