/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A small engine for fuzz targets where libFuzzer is not at hand: runs every file of the folder given as argument, then
 * mutations of them for FUZZ_MS milliseconds (2000) or FUZZ_RUNS runs. The mutations follow from FUZZ_SEED alone; before
 * each run the input is kept in memory, and a crash writes it to crash-NAME in the current folder, which can be given as
 * argument in place of the folder.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __asan_set_death_callback(void (*fn)(void)) __attribute__((weak));

#define INPUT_ROOM 8192u
#define MAX_SEEDS 1024

struct input {
	uint8_t *data;
	size_t size;
};
static struct input seeds[MAX_SEEDS];
static unsigned n_seeds;
static uint8_t current[INPUT_ROOM];
static size_t current_size;
static const char *name;
static uint64_t state;

static uint32_t rnd(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return below ? (uint32_t)((state >> 16) % below) : 0;
}

static void keep(void)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "crash-%s", name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd >= 0 && write(fd, current, current_size) == (ssize_t)current_size)
		dprintf(2, "the input is in %s\n", path);
}

static void crashed(int sig)
{
	keep();
	signal(sig, SIG_DFL);
	raise(sig);
}

static void run(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	current_size = size < INPUT_ROOM ? size : INPUT_ROOM;
	memcpy(current, data, current_size);
	copy = malloc(current_size ? current_size : 1); /* of its exact size, so that sanitizers see over-reads */
	if (!copy)
		return;
	memcpy(copy, current, current_size);
	LLVMFuzzerTestOneInput(copy, current_size);
	free(copy);
}

static void load(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && n_seeds < MAX_SEEDS) {
		uint8_t *p = malloc(INPUT_ROOM);

		n = p ? read(fd, p, INPUT_ROOM) : -1;
		if (n >= 0)
			seeds[n_seeds++] = (struct input){p, (size_t)n};
		else
			free(p);
	}
	close(fd);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void load_all(const char *path)
{
	struct dirent **e;
	char file[4096];
	int n = scandir(path, &e, NULL, by_name);

	if (n < 0) {
		load(path);
		return;
	}
	for (int i = 0; i < n; i++) {
		snprintf(file, sizeof(file), "%s/%s", path, e[i]->d_name);
		load(file);
		free(e[i]);
	}
	free(e);
}

static size_t mutate(uint8_t *p, size_t size)
{
	static const uint32_t odd[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff};

	for (unsigned times = 1 + rnd(8); times; times--) {
		size_t at = rnd((uint32_t)size + 1), n = 1 + rnd(16);

		switch (rnd(7)) {
		case 0: /* a bit */
			if (at < size)
				p[at] ^= (uint8_t)(1u << rnd(8));
			break;
		case 1: /* a byte */
			if (at < size)
				p[at] = (uint8_t)rnd(256);
			break;
		case 2: { /* an odd number of some width */
			uint32_t v = odd[rnd(sizeof(odd) / sizeof(odd[0]))];
			size_t w = (size_t)1 << rnd(3);

			if (at + w <= size)
				memcpy(p + at, &v, w);
			break;
		}
		case 3: /* bytes in between */
			if (size + n <= INPUT_ROOM) {
				memmove(p + at + n, p + at, size - at);
				for (size_t i = 0; i < n; i++)
					p[at + i] = (uint8_t)rnd(256);
				size += n;
			}
			break;
		case 4: /* bytes away */
			if (at + n <= size) {
				memmove(p + at, p + at + n, size - at - n);
				size -= n;
			}
			break;
		case 5: /* a part of another input */
			if (n_seeds) {
				const struct input *o = &seeds[rnd(n_seeds)];
				size_t from = rnd((uint32_t)o->size + 1), len = rnd((uint32_t)(o->size - from) + 1);

				if (len > INPUT_ROOM - at)
					len = INPUT_ROOM - at;
				memcpy(p + at, o->data + from, len);
				if (at + len > size)
					size = at + len;
			}
			break;
		default: /* a part again */
			if (at < size && size < INPUT_ROOM) {
				size_t len = rnd((uint32_t)(size - at)) + 1;

				if (len > INPUT_ROOM - size)
					len = INPUT_ROOM - size;
				memcpy(p + size, p + at, len);
				size += len;
			}
		}
	}
	return size;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t setting(const char *var, uint64_t otherwise)
{
	const char *s = getenv(var);

	return s ? strtoull(s, NULL, 0) : otherwise;
}

int main(int argc, char **argv)
{
	static uint8_t buf[INPUT_ROOM];
	uint64_t end = now_ms() + setting("FUZZ_MS", 2000), most = setting("FUZZ_RUNS", UINT64_MAX), runs = 0;

	name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	state = setting("FUZZ_SEED", 88172645463325252u) | 1;
	signal(SIGSEGV, crashed);
	signal(SIGBUS, crashed);
	signal(SIGABRT, crashed);
	signal(SIGFPE, crashed);
	if (__asan_set_death_callback)
		__asan_set_death_callback(keep);
	for (int i = 1; i < argc; i++)
		load_all(argv[i]);
	for (unsigned i = 0; i < n_seeds; i++)
		run(seeds[i].data, seeds[i].size);
	while (runs < most && now_ms() < end) {
		for (unsigned i = 0; i < 64 && runs < most; i++, runs++) {
			size_t size = 0;

			if (n_seeds && rnd(8)) {
				const struct input *s = &seeds[rnd(n_seeds)];

				memcpy(buf, s->data, s->size);
				size = s->size;
			} else {
				size = rnd(512);
				for (size_t k = 0; k < size; k++)
					buf[k] = (uint8_t)rnd(256);
			}
			run(buf, mutate(buf, size));
		}
	}
	printf("%s: %u seeds, %llu mutations\n", name, n_seeds, (unsigned long long)runs);
	for (unsigned i = 0; i < n_seeds; i++)
		free(seeds[i].data);
	return 0;
}
