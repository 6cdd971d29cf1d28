/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command "fuse-dmabuf exporters": lists what this machine has for buffers. */
#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "complain.h"
#include "exit-code.h"
#include "exporters.h"
#include "fuse-dmabuf.h"
#include "json-option.h"
#include "table.h"

static const char usage[] =
	"usage: fuse-dmabuf exporters [--json]\n"
	"\n"
	"Lists the memory that this machine has for buffers, and what keeps you from the rest.\n"
	"\n"
	"  --json      print JSON\n"
	"  -h, --help  this text\n";

/* Appends an entry to the array @data. fuse-dmabuf-exporters(1) explains the members. */
static int add_entry(void *data, const struct fdmabuf_exporter_info *info)
{
	json_t *entry = json_pack("{s:s, s:s, s:s, s:o, s:b, s:i, s:s}",
		"exporter", info->name,
		"what", info->what,
		"device", info->device,
		"bytes", info->bytes ? json_integer((json_int_t)info->bytes) : json_null(),
		"dmabuf", info->has_dmabuf,
		"error", info->error,
		"problem", info->text);

	return json_array_append_new(data, entry);
}

static const char *get_string(const json_t *entry, const char *name)
{
	return json_string_value(json_object_get(entry, name));
}

/* Returns the length of the longest value of a member, or of its heading. */
static int column_width(const json_t *entries, const char *name, const char *heading)
{
	size_t width = strlen(heading), length, i;
	const json_t *entry;

	json_array_foreach((json_t *)entries, i, entry) {
		length = strlen(get_string(entry, name));
		width = length > width ? length : width;
	}
	return (int)width;
}

static void print_entry(const json_t *entry, int what_width, int device_width)
{
	const json_t *bytes = json_object_get(entry, "bytes");
	const char *dmabuf = json_is_true(json_object_get(entry, "dmabuf")) ? "yes" : "no";
	bool failed = json_integer_value(json_object_get(entry, "error"));
	char size[32];

	printf("%-*s  %-*s  %8s  %-7s  ", what_width, get_string(entry, "what"), device_width,
	       get_string(entry, "device"),
	       json_is_integer(bytes) ? size_text(json_integer_value(bytes), size) : "-",
	       failed ? "-" : dmabuf);
	print_last_cell(get_string(entry, "problem"));
}

static void print_table(const json_t *entries)
{
	int what_width = column_width(entries, "what", "WHAT");
	int device_width = column_width(entries, "device", "DEVICE");
	const json_t *entry;
	size_t i;

	printf("%-*s  %-*s  %8s  %-7s  %s\n", what_width, "WHAT", device_width, "DEVICE", "FREE",
	       "DMA-BUF", "PROBLEM");
	json_array_foreach((json_t *)entries, i, entry)
		print_entry(entry, what_width, device_width);
}

static int print_exporters(bool as_json)
{
	json_t *entries = json_array(), *answer;

	if (fdmabuf_exporters(add_entry, entries)) {
		json_decref(entries);
		return complain("out of memory");
	}
	if (as_json) {
		answer = json_pack("{s:O}", "exporters", entries);
		json_dumpf(answer, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(answer);
	} else {
		print_table(entries);
	}
	json_decref(entries);
	return 0;
}

int exporters_command(int argc, char **argv)
{
	bool as_json = false;
	int code;

	if (!parse_json_option(argc, argv, "exporters", usage, &as_json, &code))
		return code;
	if (argc > optind) {
		complain("%s: this command takes no arguments: see fuse-dmabuf exporters --help",
			 argv[optind]);
		return EXIT_BAD_INPUT;
	}
	return print_exporters(as_json);
}
