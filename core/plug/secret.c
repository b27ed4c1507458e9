/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include "plug/impl.h"
#include "plug/secret.h"
#include "util/parse.h"
#include "util/paths.h"

#define PROMPT_MAX 64u

/* Given once, by a pipe or by a person. */
struct kept {
	struct kept *next;
	char value[PROMPT_MAX + 8];
	size_t len;
	char *text; /* a mapping of SECRET_MAX + 1 bytes */
};
static struct kept *kept;
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

static char *room_new(void)
{
	char *p = mmap(NULL, SECRET_MAX + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (mlock(p, SECRET_MAX + 1) < 0) { /* a limit: then it may be swapped */
	}
	madvise(p, SECRET_MAX + 1, MADV_DONTDUMP);
	return p;
}

static void room_free(char *p)
{
	if (!p)
		return;
	explicit_bzero(p, SECRET_MAX + 1);
	munmap(p, SECRET_MAX + 1);
}

static int fd_number(const char *text)
{
	int64_t n;

	return g_ascii_isdigit(*text) && strlen(text) < 8 && parse_int(text, &n, NULL) >= 0 ? (int)n : -1;
}

int secret_parse(const char *value, char **out, struct vh_err *e)
{
	int r = 0;

	*out = NULL;
	if (g_str_has_prefix(value, "file:")) {
		if (!value[5])
			return err_set(e, -EINVAL, "file: is followed by a path");
		g_autofree char *path = g_canonicalize_filename(value + 5, NULL);

		*out = g_strconcat("file:", path, NULL);
		return 0;
	}
	if (g_str_has_prefix(value, "fd:")) {
		if (fd_number(value + 3) < 0)
			r = err_set(e, -EINVAL, "fd: is followed by the number of an open file descriptor");
	} else if (g_str_has_prefix(value, "prompt:")) {
		if (strlen(value) > 7 + PROMPT_MAX || !g_utf8_validate(value, -1, NULL))
			r = err_set(e, -EINVAL, "what is asked for may have %u bytes of text", PROMPT_MAX);
		for (const char *p = value; r == 0 && *p; p++)
			if ((unsigned char)*p < ' ' || *p == 127)
				r = err_set(e, -EINVAL, "what is asked for has a control character");
	} else {
		r = name_check("secret", value, e);
	}
	if (r == 0)
		*out = g_strdup(value);
	else
		err_remedy(e, "give the name of a secret, file:PATH, fd:N or prompt:, never the secret itself");
	return r;
}

/* One newline at the end of a text is the editor's. A key of random bytes may end with that byte. */
static size_t trim(const char *p, size_t len)
{
	if (!len || p[len - 1] != '\n' || !g_utf8_validate(p, (gssize)len - 1, NULL))
		return len;
	for (size_t k = 0; k + 1 < len; k++)
		if (((unsigned char)p[k] < ' ' && p[k] != '\t') || p[k] == 127)
			return len;
	return len - 1;
}

/* Up to SECRET_MAX + 1 bytes; from the beginning where that is possible. */
static int64_t read_all(int fd, int seekable, char *to, struct vh_err *e)
{
	size_t len = 0;

	while (len <= SECRET_MAX) {
		ssize_t n = seekable ? pread(fd, to + len, SECRET_MAX + 1 - len, (off_t)len) : read(fd, to + len, SECRET_MAX + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, "cannot be read: %s", g_strerror(errno));
		if (!n)
			break;
		len += (size_t)n;
	}
	return (int64_t)trim(to, len);
}

static int64_t from_file(const char *path, int flags, char *to, struct vh_err *e)
{
	struct stat st;
	int64_t r;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);

	if (fd < 0) {
		r = err_set(e, -errno, "%s cannot be opened: %s", path, g_strerror(errno));
		if (r == -ENOENT)
			err_remedy(e, "put the secret into that file, with mode 0600");
		return r;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_mode & (S_IRWXG | S_IRWXO) ||
	    (st.st_uid != 0 && st.st_uid != geteuid())) {
		r = err_set(e, -EACCES, "%s can be read by others, or is not yours", path);
		err_remedy(e, "chown it to yourself and chmod 0600 '%s'", path);
	} else {
		r = read_all(fd, 1, to, e);
	}
	close(fd);
	return r;
}

/* Only what was inherited: the process's own are all CLOEXEC. */
static int64_t from_fd(const char *value, char *to, int *once, struct vh_err *e)
{
	int fd = fd_number(value + 3), flags = fd < 0 ? -1 : fcntl(fd, F_GETFD);
	struct stat st;

	if (flags < 0 || flags & FD_CLOEXEC || fstat(fd, &st) < 0) {
		err_remedy(e, "open it for the command, as in: vhost ... key-secret=fd:9 9<FILE");
		return err_set(e, -EBADF, "file descriptor %d is not open", fd);
	}
	*once = !S_ISREG(st.st_mode);
	return read_all(fd, !*once, to, e);
}

/* Reads a line, a byte at a time. The terminal is in a mode without echo, lines and signals. */
static int64_t type_in(int tty, char *to, struct vh_err *e)
{
	size_t len = 0;

	for (;;) {
		char c;
		ssize_t n = read(tty, &c, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || c == 3 || (c == 4 && !len)) /* hung up, ^C, ^D */
			return err_set(e, -ECANCELED, "no passphrase was typed in");
		if (c == '\r' || c == '\n' || c == 4)
			return (int64_t)len;
		if (c == 127 || c == 8) {
			while (len && ((unsigned char)to[--len] & 0xc0) == 0x80)
				; /* a whole character */
		} else if (c == 21) { /* ^U */
			len = 0;
		} else if (len <= SECRET_MAX) {
			to[len++] = c;
		}
	}
}

static void say(int tty, const char *text)
{
	if (write(tty, text, strlen(text)) < 0) { /* then the person types without being asked */
	}
}

static int64_t from_prompt(const char *value, char *to, struct vh_err *e)
{
	int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct termios old, raw;
	int64_t r;

	if (tty < 0 || tcgetattr(tty, &old) < 0) {
		if (tty >= 0)
			close(tty);
		err_remedy(e, "without a terminal, use the name of a secret, file:PATH or fd:N");
		return err_set(e, -ENOTTY, "there is no terminal to ask for it");
	}
	raw = old;
	raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (tcsetattr(tty, TCSAFLUSH, &raw) < 0) {
		r = err_set(e, -errno, "the terminal does not stop its echo");
	} else { /* whoever sees the question may answer at once: nothing is flushed any more */
		say(tty, value[7] ? value + 7 : "Passphrase");
		say(tty, ": ");
		r = type_in(tty, to, e);
	}
	tcsetattr(tty, TCSAFLUSH, &old);
	say(tty, "\n");
	close(tty);
	return r;
}

static int64_t again(const char *value, char *to)
{
	int64_t r = -ENOENT;

	for (struct kept *k = kept; k; k = k->next) {
		if (strcmp(k->value, value))
			continue;
		memcpy(to, k->text, k->len);
		r = (int64_t)k->len;
	}
	return r;
}

static void keep_it(const char *value, const char *text, size_t len)
{
	struct kept *k = g_new0(struct kept, 1);

	g_strlcpy(k->value, value, sizeof(k->value));
	k->text = room_new();
	if (!k->text || len > SECRET_MAX) {
		room_free(k->text);
		g_free(k);
		return;
	}
	memcpy(k->text, text, len);
	k->len = len;
	k->next = kept;
	kept = k;
}

/* Those that are given once: by one thread at a time, so that nobody is asked twice. */
static int64_t get_once(const char *value, char *to, struct vh_err *e)
{
	int once = 1;
	int64_t r;

	pthread_mutex_lock(&kept_lock);
	r = again(value, to);
	if (r < 0) {
		r = *value == 'p' ? from_prompt(value, to, e) : from_fd(value, to, &once, e);
		if (r > 0 && once)
			keep_it(value, to, (size_t)r);
	}
	pthread_mutex_unlock(&kept_lock);
	return r;
}

__attribute__((destructor)) void secret_forget(void)
{
	pthread_mutex_lock(&kept_lock);
	while (kept) {
		struct kept *k = kept;

		kept = k->next;
		room_free(k->text);
		g_free(k);
	}
	pthread_mutex_unlock(&kept_lock);
}

int64_t secret_get(const char *value, void *buf, uint64_t cap, struct vh_err *e)
{
	g_autofree char *form = NULL;
	char *tmp;
	int64_t r = secret_parse(value, &form, e);

	if (r < 0)
		return r;
	tmp = room_new();
	if (!tmp)
		return err_set(e, -ENOMEM, "no memory for a secret");
	if (g_str_has_prefix(form, "file:")) {
		r = from_file(form + 5, 0, tmp, e);
	} else if (strchr(form, ':')) { /* which names do not have */
		r = get_once(form, tmp, e);
	} else {
		g_autofree char *dir = path_in(PATH_CONFIG, "secrets", NULL), *path = g_build_filename(dir, form, NULL);

		r = from_file(path, O_NOFOLLOW, tmp, e);
	}
	if (r >= 0 && ((uint64_t)r > cap || r > SECRET_MAX))
		r = err_set(e, -ENOSPC, "it is longer than the %llu bytes that fit", (unsigned long long)MIN(cap, SECRET_MAX));
	if (r > 0)
		memcpy(buf, tmp, (size_t)r);
	if (r < 0)
		err_object(e, "secret %s", form);
	room_free(tmp);
	return r;
}
