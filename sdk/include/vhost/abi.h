/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * The rules that every header here obeys, the version numbers, and the identity note.
 *
 * Version rules (docs/abi.md has them in full): the major is part of the entry symbol's name; within a major
 * structs only grow at their end; every struct that crosses the boundary begins with `uint32_t size`, set by
 * whoever allocates it, and the other side touches only the bytes below it; a member that is NULL, or that lies
 * beyond `size`, is absent, and absent means unsupported, with the fallback that its comment names.
 *
 * Thread tags in the comments: [main] control calls, serialised per object, may block, run on any one thread at a
 * time; [queue] only on the loop that owns the queue, must never block; [meta] a worker of the image, may block;
 * [any] any thread, must not block. Signals are blocked in every thread from which the host calls a plugin; a
 * plugin's own threads block all signals as well.
 *
 * Errors are negative errno values. Text is attached once, where the cause is known, by vh_host.err().
 * What a side allocates, that side frees. Strings that a plugin hands out live until their object is closed,
 * strings that the host hands in live until the call returns, unless a comment says otherwise.
 */
#ifndef VHOST_ABI_H
#define VHOST_ABI_H

#include <stddef.h>
#include <stdint.h>

#define VH_ABI_MAJOR 1u
#define VH_ABI_MINOR 0u
/* Not 0 until 1.0 is released: a draft plugin loads only into a host of the same draft. Raised by every change. */
#define VH_ABI_DRAFT 5u

#ifdef __cplusplus
#define VH_EXPORT extern "C" __attribute__((visibility("default")))
#define VH_STATIC_ASSERT(c, text) static_assert(c, text)
#else
#define VH_EXPORT __attribute__((visibility("default")))
#define VH_STATIC_ASSERT(c, text) _Static_assert(c, text)
#endif

#define VH_PRINTF(f, a) __attribute__((format(printf, f, a)))

VH_STATIC_ASSERT(sizeof(void *) == 8, "the vhost ABI is defined for 64-bit machines");

/* The bytes of *p, or of a struct, up to the end of member m, and whether *p holds a usable m. */
#define VH_END(p, m) ((size_t)((const char *)&(p)->m - (const char *)(p)) + sizeof((p)->m))
#define VH_UPTO(type, m) (offsetof(type, m) + sizeof(((type *)0)->m))
#define VH_KNOWS(p, m) ((p)->size >= VH_END(p, m))
#define VH_HAS(p, m) (VH_KNOWS(p, m) && (p)->m != 0)

/* Must-understand flags are the low half of a 64-bit flags word: a receiver refuses a bit of it that it does not
 * know with -EOPNOTSUPP. The high half may be ignored. */
#define VH_MUST_UNDERSTAND UINT64_C(0xffffffff)

/* What kinds of interface a file offers; also in the note. */
#define VH_KIND_POOL 0x1u
#define VH_KIND_FORMAT 0x2u
#define VH_KIND_NET 0x4u
#define VH_KIND_FILTER 0x8u

/*
 * The identity note, section .note.vhost: read by the host, and shown by readelf -n, without running any code of
 * the file. A file without it is not a vhost plugin. `id` equals vh_plugin.id and is padded with NULs.
 */
#define VH_NOTE_SECTION ".note.vhost"
#define VH_NOTE_OWNER "VHOST"
#define VH_NOTE_TYPE 1u
#define VH_ID_MAX 32 /* with the final NUL; [a-z0-9][a-z0-9-]* */

struct vh_note {
	uint32_t owner_size, desc_size, type;
	char owner[8];
	uint32_t major, minor, draft, kinds;
	char id[VH_ID_MAX];
};
VH_STATIC_ASSERT(sizeof(struct vh_note) == 68, "the note is packed by construction");

#define VH_PLUGIN_NOTE(ID, KINDS)                                                                                      \
	__attribute__((used, section(VH_NOTE_SECTION), aligned(4))) static const struct vh_note vh_note_instance = { \
		6, 48, VH_NOTE_TYPE, VH_NOTE_OWNER, VH_ABI_MAJOR, VH_ABI_MINOR, VH_ABI_DRAFT, (KINDS), ID        \
	}

#endif
