/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finds, names and lists the devices of a runtime. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "buffer/gpu.h"
#include "buffer/pci.h"

int gpu_parse(const char *argument, struct fdmabuf_memory *memory)
{
	char *rest;
	long number;

	errno = 0;
	number = strtol(argument, &rest, 10);
	if (isdigit((unsigned char)*argument) && !*rest && !errno && number <= INT_MAX)
		memory->number = number;
	else
		memory->device = argument;
	return 0;
}

int gpu_find_device(const struct gpu_runtime *runtime, const struct fdmabuf_memory *memory,
		    int *device)
{
	const char *wanted = memory->device;
	char number[16];
	int result;

	if (wanted && !is_pci_address(wanted))
		return fail(EINVAL, "%s: \"%s\" is no device: write %s:NUMBER, or "
			    "%s:DOMAIN:BUS:DEV.FN, for example %s:0000:03:00.0", runtime->name,
			    wanted, runtime->name, runtime->name, runtime->name);
	snprintf(number, sizeof(number), "%u", memory->number);
	if (wanted)
		result = runtime->device_by_address(device, wanted);
	else if (memory->number > INT_MAX)
		result = GPU_ERROR_INVALID_DEVICE;
	else
		result = runtime->device_get(device, memory->number);
	/* HIP has this result for an address that no device has. */
	if (result == GPU_ERROR_INVALID_VALUE)
		result = GPU_ERROR_INVALID_DEVICE;
	if (result)
		return gpu_fail(runtime, result, "device %s (\"%s\" lists them)",
				wanted ? wanted : number, runtime->lister);
	return 0;
}

void gpu_name_device(const struct gpu_runtime *runtime, int device, char *name, size_t size)
{
	char address[20], title[64];

	if (runtime->device_address(address, sizeof(address), device))
		snprintf(address, sizeof(address), "device %d", device);
	if (runtime->device_name(title, sizeof(title), device))
		snprintf(title, sizeof(title), "%s", runtime->title);
	/* In lower case, as in /sys. */
	for (char *c = address; *c; c++)
		*c = tolower((unsigned char)*c);
	snprintf(name, size, "%s (%s)", address, title);
}

static int list_device(const struct gpu_runtime *runtime, const struct exporter_report *report,
		       int number)
{
	struct fdmabuf_exporter_info info = { 0 };
	char what[24], name[88];
	int device, result = runtime->device_get(&device, number);
	const char *why;

	snprintf(what, sizeof(what), "%s:%d", runtime->name, number);
	if (result)
		return report_failure(report, what, NULL,
				      gpu_fail(runtime, result, "device %d", number));
	info.what = what;
	gpu_name_device(runtime, device, name, sizeof(name));
	why = runtime->why_no_export(device);
	info.device = name;
	info.bytes = runtime->free_bytes(device);
	info.has_dmabuf = !why;
	info.text = why;
	return report_exporter(report, info);
}

int gpu_list(const struct gpu_runtime *runtime, const struct exporter_report *report)
{
	int result, ret, count = 0, error = runtime->load();

	if (!error) {
		result = runtime->device_count(&count);
		if (!result && !count)
			result = GPU_ERROR_NO_DEVICE;
		if (result)
			error = gpu_fail(runtime, result, "no device (\"%s\" lists them)",
					 runtime->lister);
	}
	if (error)
		return report_failure(report, NULL, NULL, error);
	for (int i = 0; i < count; i++) {
		ret = list_device(runtime, report, i);
		if (ret)
			return ret;
	}
	return 0;
}
