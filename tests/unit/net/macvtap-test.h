/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef TEST_MACVTAP_TEST_H
#define TEST_MACVTAP_TEST_H

#include "macvtap.h"
#include "netcase.h"

extern const char *tapdev_test_sysfs;

/* A fresh namespace with the uplink v0, whose other end is v1. 0: not on this kernel. */
static inline int begin(void)
{
	if (!netns_fresh())
		return 0;
	net_fault_hook = NULL;
	tapdev_test_sysfs = NULL;
	run_ok("ip link add v0 address 02:00:00:00:00:a0 type veth peer name v1 address 02:00:00:00:00:a1 && "
	       "ip link set v0 addrgenmode none && ip link set v1 addrgenmode none && ip link set v0 up && ip link set v1 up");
	if (has("v1", "ip link add probe link v0 type macvtap || ip link show v1")) {
		g_test_skip("this kernel has no macvtap");
		return 0;
	}
	run_ok("ip link del probe");
	return 1;
}

#endif
