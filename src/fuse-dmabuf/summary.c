/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Prints the summary of a load. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "complain.h"
#include "summary.h"

static const char *path_name(enum fdmabuf_path path)
{
	static const char *const names[] = {
		[FDMABUF_DIRECT] = "direct",
		[FDMABUF_BOUNCE] = "bounce",
		[FDMABUF_DIRECT_IO] = "direct-io",
	};

	return names[path];
}

/* fuse-dmabuf-load(1) explains the names. */
static const char *proof_name(enum fdmabuf_proven proven)
{
	static const char *const names[] = {
		[FDMABUF_NOT_DIRECT] = "not direct",
		[FDMABUF_PROVEN] = "proven",
		[FDMABUF_UNPROVABLE] = "unprovable",
		[FDMABUF_NOT_PROVEN] = "not proven",
		[FDMABUF_DISPROVED] = "disproved",
	};

	return names[proven];
}

/* Returns bytes per second. */
static double throughput(const struct load_result *result)
{
	return result->seconds > 0 ? result->bytes / result->seconds : 0;
}

static int print_line(const struct load_options *options, const struct load_result *result)
{
	const struct fdmabuf_counters *counters = &result->counters;
	bool is_direct = result->range.path == FDMABUF_DIRECT;
	const char *why = is_direct ? proof_name(result->range.proven) : result->range.text;

	return printf("%s: %llu tensors, %llu bytes into %s by the %s path (%s), %.3f s, "
		      "%.1f MiB/s, CPU %.3f s user %.3f s system, %llu bytes copied, "
		      "%llu requests, %llu retries, %llu tokens%s%s\n",
		      options->file, (unsigned long long)result->tensors,
		      (unsigned long long)result->bytes, options->into,
		      path_name(result->range.path),
		      why,
		      result->seconds, throughput(result) / (1 << 20),
		      result->user_seconds, result->system_seconds,
		      (unsigned long long)counters->bytes_copied,
		      (unsigned long long)counters->requests,
		      (unsigned long long)counters->retries, (unsigned long long)counters->tokens,
		      counters->reopens ? ", went on after its mount had gone and returned" : "",
		      options->verify ? ", verified" : "");
}

/* fuse-dmabuf-load(1) explains the members. */
static int print_json(const struct load_options *options, const struct load_result *result)
{
	const struct fdmabuf_counters *counters = &result->counters;
	json_t *summary = json_pack("{s:o?, s:s, s:s, s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:f, "
				    "s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}",
		"file", json_string(options->file),	/* null if its name is not UTF-8 */
		"destination", options->into,
		"path", path_name(result->range.path),
		"reason", result->range.text,
		"proof", proof_name(result->range.proven),
		"tensors", (json_int_t)result->tensors,
		"bytes", (json_int_t)result->bytes,
		"seconds", result->seconds,
		"bytes_per_second", throughput(result),
		"user_seconds", result->user_seconds,
		"system_seconds", result->system_seconds,
		"bytes_direct", (json_int_t)counters->bytes_direct,
		"bytes_direct_io", (json_int_t)counters->bytes_direct_io,
		"bytes_copied", (json_int_t)counters->bytes_copied,
		"bytes_cached", (json_int_t)counters->bytes_cached,
		"bytes_proven", (json_int_t)counters->bytes_proven,
		"bytes_zeroed", (json_int_t)counters->bytes_zeroed,
		"requests", (json_int_t)counters->requests,
		"retries", (json_int_t)counters->retries,
		"tokens", (json_int_t)counters->tokens,
		"reopens", (json_int_t)counters->reopens,
		"verified", options->verify);
	int ret = summary ? json_dumpf(summary, stdout, JSON_REAL_PRECISION(12)) : -1;

	json_decref(summary);
	return ret ? -1 : puts("");
}

int print_summary(const struct load_options *options, const struct load_result *result)
{
	int ret = options->json ? print_json(options, result) : print_line(options, result);

	if (ret < 0 || fflush(stdout))
		return complain("the summary cannot be written");
	return 0;
}
