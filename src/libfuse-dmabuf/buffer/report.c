/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reports what exporters have to the function that fdmabuf_exporters() was called with. */
#include <stdio.h>

#include "base/error.h"
#include "buffer/exporter.h"

int report_exporter(const struct exporter_report *report, struct fdmabuf_exporter_info info)
{
	info.size = sizeof(info);
	info.exporter = report->exporter->number;
	info.name = report->exporter->name;
	if (!info.what)
		info.what = info.name;
	if (!info.device)
		info.device = "";
	if (!info.text)
		info.text = "";
	return report->function(report->data, &info);
}

int report_failure(const struct exporter_report *report, const char *what, const char *device,
		   int error)
{
	char text[ERROR_TEXT_SIZE];

	/* The function may call the library, whose next failure overwrites the text. */
	snprintf(text, sizeof(text), "%s", fdmabuf_error());
	return report_exporter(report, (struct fdmabuf_exporter_info){
		.what = what, .device = device, .error = error, .text = text,
	});
}
