/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * A network backend makes a port: an interface of the host with one fd per queue pair. The host does all I/O on the fds
 * and all TUN ioctls on them (header size, offloads, queues on and off). Everything that needs a privilege happens in
 * open(), before the guest runs, or through calls marked [privileged], which the host makes in its small child.
 */
#ifndef VHOST_NET_H
#define VHOST_NET_H

#include <vhost/host.h>
#include <vhost/opt.h>

#define VH_NET_PATH_TAP 1u /* queue_fd gives tap or macvtap fds, opened with IFF_VNET_HDR */
/* queue_fd gives a connected stream socket (one pair): each frame is led by its length, 32 bits, big-endian, and has no vnet
 * header, so no offload either. What QEMU's `-netdev stream`, passt and others speak. */
#define VH_NET_PATH_STREAM 2u

/* Offloads, wanted and given. */
#define VH_NET_CSUM UINT64_C(0x1)
#define VH_NET_TSO4 UINT64_C(0x2)
#define VH_NET_TSO6 UINT64_C(0x4)
#define VH_NET_ECN UINT64_C(0x8)
#define VH_NET_UFO UINT64_C(0x10)
#define VH_NET_USO UINT64_C(0x20)

/* vh_net_ops.caps */
#define VH_NET_MULTI_QUEUE UINT64_C(0x1)
#define VH_NET_SET_LINK UINT64_C(0x2)
#define VH_NET_SET_FILTER UINT64_C(0x4)
#define VH_NET_RATE UINT64_C(0x8)

struct vh_net_open {
	uint32_t size, pairs; /* queue pairs wanted, at least 1 */
	const struct vh_opts *opts;
	struct vh_object *object; /* for events and counters */
	const char *owner;   /* the owner tag to leave on every kernel object: "vhost:NAME:PID:START:N" */
	const char *ifname;  /* NULL: the kernel's next vnetN */
	const char *state;   /* a folder for the journal; its entries end with the objects that they name */
	uint8_t mac[6];      /* the guest's */
	uint16_t mtu;        /* 0: the backend's own */
	uint64_t offload;    /* VH_NET_CSUM ... wanted */
	uint64_t flags;      /* VH_NET_OPEN_* */
	const char *network; /* the defined network that the port is in, whose options are in opts too; NULL: none */
	const char *kind;    /* its kind, one of vh_net_ops.kinds; NULL as above */
};
#define VH_NET_OPEN_DRY_RUN UINT64_C(0x1) /* must-understand: change nothing; plan() tells the steps; no port */

/*
 * A network is an object with a name: a definition that the host keeps (type, kind, options), which makes ports of `--net NAME`
 * share what they need. open() makes what is missing and the last close() removes it; start() makes it and keeps it until stop().
 */
struct vh_network {
	uint32_t size, resv;
	const char *name, *kind;
	const struct vh_opts *opts; /* without those marked VH_OPT_NIC */
	const char *owner; /* the tag of what is kept: "vhost:@NAME:ID"; NULL: nothing is (plan, describe) */
	const char *state; /* the folder for the journal, as for a port */
};

/* A part of a network, for people: the uplink, bridges, VLANs, ports. Strings may be NULL. */
struct vh_net_part {
	uint32_t size, ifindex; /* 0: no interface */
	const char *kind;  /* "uplink", "bridge", "vlan", "port", "macvtap", "service" (dnsmasq, NAT) */
	const char *name;
	const char *above; /* the name of the part that this one is attached to */
	const char *owner; /* its owner tag */
	const char *detail; /* "VLAN 10 untagged", "192.0.2.1/24" */
	uint32_t mtu;
	uint8_t up, resv[3];
	uint8_t mac[6], resv2[2];
};
typedef void vh_net_part_fn(void *ctx, const struct vh_net_part *part);

struct vh_net_info {
	uint32_t size, path; /* VH_NET_PATH_* */
	char ifname[16];
	uint32_t ifindex, pairs, mtu, vnet_hdr; /* vnet_hdr: largest header length, 10 or 12 */
	uint64_t offload;
	uint8_t mac[6];
	uint8_t link, resv;
};

#define VH_NET_RX_PROMISC 0x1u
#define VH_NET_RX_ALLMULTI 0x2u
#define VH_NET_RX_NOMULTI 0x4u
#define VH_NET_RX_NOUNI 0x8u
#define VH_NET_RX_NOBCAST 0x10u
struct vh_net_filter {
	uint32_t size, mode; /* VH_NET_RX_* */
	const uint8_t (*unicast)[6], (*multicast)[6];
	const uint64_t *vlans; /* 4096 bits, or NULL: no filtering */
	uint32_t n_unicast, n_multicast;
	uint8_t mac[6], resv[2]; /* the guest's own address, which it may have changed; zero: as it was */
};

/* One step of what open() would do, or of what repair() did, for people: "create bridge br0". */
typedef void vh_net_step_fn(void *ctx, const char *text);
/* One kernel object found by gc(). */
typedef void vh_net_gc_fn(void *ctx, const char *object, const char *owner, int result);

struct vh_net_ops {
	uint32_t size, resv;
	uint64_t caps;
	const char *kind; /* "bridge", "vlan", "macvtap" */
	vh_schema options;
	/* [main] may block. Transactional: on error every earlier step is undone. Mandatory. */
	int (*open)(const struct vh_net_open *o, void **port, struct vh_err *e);
	/* [main] The steps of such an open, without doing any. Absent: "not told". */
	int (*plan)(const struct vh_net_open *o, vh_net_step_fn *fn, void *ctx, struct vh_err *e);
	int (*info)(void *port, struct vh_net_info *i); /* [main] must not block. Mandatory. */
	/* [main] The fd of a queue pair, non-blocking, close-on-exec, borrowed; valid until close. Mandatory. */
	int (*queue_fd)(void *port, uint32_t pair, struct vh_err *e);
	int (*set_link)(void *port, uint32_t up, struct vh_err *e); /* [main][privileged] Absent: the host stops its queues */
	int (*set_filter)(void *port, const struct vh_net_filter *f, struct vh_err *e); /* [main][privileged] Absent: all passes */
	/* [main][privileged] may block. Removes what open() made and nobody else uses. Mandatory. */
	void (*close)(void *port);
	/* [main] Removes every object with an owner tag of vhost whose owner is not alive (asks alive(owner)); objects of
	 * others are never touched. Absent: nothing is ever left. */
	int (*gc)(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx,
		  struct vh_err *e);
	/* The kinds of network that this backend makes, NULL-terminated: "vlan". Absent: none, only ports of their own. */
	const char *const *kinds;
	/* [main][privileged] may block. Transactional, and nothing to do for a network that is started. Absent with kinds: nothing
	 * needs to be kept. */
	int (*start)(const struct vh_network *n, struct vh_err *e);
	/* [main][privileged] may block. -EBUSY: it has ports, which the text names. Nothing to do for one that is not started. */
	int (*stop)(const struct vh_network *n, struct vh_err *e);
	/* [main] The steps of start(), without doing any. */
	int (*plan_start)(const struct vh_network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e);
	/* [main] The parts that exist now, from the uplink down. */
	int (*describe)(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e);
	/* [main] An fd that is readable when others may have changed what the port lies on; borrowed, valid until close().
	 * Negative: there is none, and repair() is not called. Comes with repair(). */
	int (*watch)(void *port, struct vh_err *e);
	/* [main][privileged] may block. What others took from under the port is put back: a bridge that was deleted, an uplink
	 * that was gone and has returned. What somebody meanwhile uses otherwise stays his, and what people did to the port
	 * itself stays done. Called once after watch() and when its fd was readable, which is read empty; seldom enough that a
	 * quarrel with another program takes no time. 1: something was put back, and fn is told what, each in a line; 0:
	 * nothing is amiss; -errno: it cannot be put back now, with the reason: asked again later. */
	int (*repair)(void *port, vh_net_step_fn *fn, void *ctx, struct vh_err *e);
};

#endif
