/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Log lines to standard error, by level and topic; VHOST_LOG=level or topic=level,... and --verbose set what is shown. */
#ifndef UTIL_LOG_H
#define UTIL_LOG_H

#include <stdarg.h>
#include <vhost/host.h>

int log_enabled(uint32_t level, const char *topic);
void log_line(uint32_t level, const char *topic, const char *fmt, ...) VH_PRINTF(3, 4);
void log_vline(uint32_t level, const char *topic, const char *fmt, va_list ap) VH_PRINTF(3, 0);
int log_configure(const char *spec); /* "debug" or "blk=trace,net=info"; -EINVAL */

#define log_error(topic, ...) log_line(VH_LOG_ERROR, topic, __VA_ARGS__)
#define log_warn(topic, ...) log_line(VH_LOG_WARN, topic, __VA_ARGS__)
#define log_info(topic, ...) log_line(VH_LOG_INFO, topic, __VA_ARGS__)
#define log_debug(topic, ...) do { if (log_enabled(VH_LOG_DEBUG, topic)) log_line(VH_LOG_DEBUG, topic, __VA_ARGS__); } while (0)

#endif
