/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Takes the place of drm.c where libdrm is missing. */
#include <errno.h>

#include "base/error.h"
#include "buffer/exporter.h"

static int no_libdrm(void)
{
	return fail(EOPNOTSUPP, "drm: this library was built without libdrm: install its headers, "
		    "and build again with -Ddrm=enabled");
}

static int drm_parse(const char *argument, struct fdmabuf_memory *memory)
{
	memory->device = argument;
	return 0;
}

static int drm_allocate(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory)
{
	(void)buffer;
	(void)memory;
	return no_libdrm();
}

static int drm_list(const struct exporter_report *report)
{
	return report_failure(report, NULL, NULL, no_libdrm());
}

static void drm_release(struct fdmabuf_buffer *buffer)
{
	(void)buffer;
}

const struct exporter exporter_drm = {
	.number = FDMABUF_EXPORTER_DRM,
	.name = "drm",
	.options = OPTION_DEVICE,
	.parse = drm_parse,
	.allocate = drm_allocate,
	.list = drm_list,
	.release = drm_release,
};
