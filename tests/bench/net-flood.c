/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * net-flood INTERFACE MAC LEN THREADS: sends frames out of an interface as fast as it takes them, until killed. Larger ones than
 * 1514 are TCP over IPv4 to be cut into segments of 1448. Each thread is a flow of its own, so that a tap spreads them.
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 64

static const char *interface;
static uint8_t mac[6];
static unsigned len;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void *flood(void *arg)
{
	unsigned flow = (unsigned)(uintptr_t)arg, sum = 0;
	static const uint8_t ip[] = {0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2};
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(interface), .sll_halen = 6};
	struct virtio_net_hdr h = {0};
	uint8_t *f = calloc(1, 65600);
	struct iovec iov[2] = {{&h, sizeof(h)}, {f, len}};
	struct mmsghdr m[BATCH];
	int one = 1, s = socket(AF_PACKET, SOCK_RAW, 0);

	if (s < 0 || !f || !to.sll_ifindex)
		fail(interface);
	setsockopt(s, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one));
	if (setsockopt(s, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)))
		fail("PACKET_VNET_HDR");
	memcpy(to.sll_addr, mac, 6);
	memcpy(f, mac, 6);
	memcpy(f + 6, "\2\0\0\0\xf1", 5);
	f[11] = (uint8_t)flow;
	f[12] = 8;
	memcpy(f + 14, ip, sizeof(ip));
	f[16] = (uint8_t)((len - 14) >> 8);
	f[17] = (uint8_t)(len - 14);
	for (unsigned i = 0; i < 20; i += 2)
		sum += (unsigned)(f[14 + i] << 8 | f[15 + i]);
	sum = (sum & 0xffff) + (sum >> 16);
	f[24] = (uint8_t)(~sum >> 8);
	f[25] = (uint8_t)~sum;
	f[34] = (uint8_t)(flow + 1);
	f[35] = (uint8_t)(flow * 37);
	f[36] = 0x13;
	f[37] = 0x89;
	f[46] = 0x50;
	f[47] = 0x10;
	h.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	h.csum_start = 34;
	h.csum_offset = 16;
	if (len > 1514) {
		h.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
		h.gso_size = 1448;
		h.hdr_len = 54;
	}
	for (unsigned i = 0; i < BATCH; i++)
		m[i].msg_hdr = (struct msghdr){.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = iov, .msg_iovlen = 2};
	for (;;)
		sendmmsg(s, m, BATCH, 0); /* what is refused for want of room is tried again */
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned n, b[6];

	if (argc != 5 || sscanf(argv[2], "%2x%2x%2x%2x%2x%2x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) != 6) {
		fprintf(stderr, "net-flood INTERFACE MAC LEN THREADS\n");
		return 2;
	}
	interface = argv[1];
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)b[i];
	len = (unsigned)atoi(argv[3]);
	n = (unsigned)atoi(argv[4]);
	if (len < 60 || len > 65535 || n < 1 || n > 64)
		return 2;
	for (unsigned i = 1; i < n; i++) {
		pthread_t t;

		if (pthread_create(&t, NULL, flood, (void *)(uintptr_t)i))
			return 1;
	}
	flood(NULL);
	return 0;
}
