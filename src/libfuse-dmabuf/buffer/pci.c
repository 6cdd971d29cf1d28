/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* PCI devices by their addresses, as sysfs shows them. */
#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "buffer/pci.h"

#define DEVICES "/sys/bus/pci/devices"
#define BARS 6
#define RESOURCE_MEMORY 0x200	/* a flag in the file "resource": IORESOURCE_MEM of the kernel */

bool is_pci_address(const char *address)
{
	static const char form[] = ":xx:xx.x";
	size_t domain = 0;

	while (isxdigit((unsigned char)address[domain]))
		domain++;
	if (domain < 4 || domain > 8)
		return false;
	address += domain;
	for (size_t i = 0; i < sizeof(form); i++) {
		bool is_hex = isxdigit((unsigned char)address[i]);

		if (form[i] == 'x' ? !is_hex : address[i] != form[i])
			return false;
	}
	return true;
}

bool read_last_component(const char *path, char name[PCI_NAME_SIZE])
{
	char target[PATH_MAX];
	ssize_t length = readlink(path, target, sizeof(target) - 1);

	if (length < 0)
		return false;
	target[length] = '\0';
	snprintf(name, PCI_NAME_SIZE, "%.*s", PCI_NAME_SIZE - 1,
		 strrchr(target, '/') ? strrchr(target, '/') + 1 : target);
	return true;
}

bool pci_read_link(const char *address, const char *link, char name[PCI_NAME_SIZE])
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), DEVICES "/%s/%s", address, link);
	return read_last_component(path, name);
}

uint64_t pci_biggest_bar(const char *address)
{
	uint64_t first, last, flags, size = 0;
	char path[PATH_MAX], line[128];
	FILE *file;

	snprintf(path, sizeof(path), DEVICES "/%s/resource", address);
	file = fopen(path, "re");
	if (!file)
		return 0;
	for (int bar = 0; bar < BARS && fgets(line, sizeof(line), file); bar++)
		if (sscanf(line, "%" SCNx64 " %" SCNx64 " %" SCNx64, &first, &last, &flags) == 3 &&
		    flags & RESOURCE_MEMORY)
			size = max_u64(size, last - first + 1);
	fclose(file);
	return size;
}

int pci_numa_node(const char *address)
{
	char path[PATH_MAX], name[PCI_ADDRESS_SIZE] = "";
	FILE *file;
	int node;

	if (!is_pci_address(address))
		return -1;
	/* CUDA writes addresses in capitals. */
	for (size_t i = 0; address[i] && i < sizeof(name) - 1; i++)
		name[i] = tolower((unsigned char)address[i]);
	snprintf(path, sizeof(path), DEVICES "/%s/numa_node", name);
	file = fopen(path, "re");
	if (!file)
		return -1;
	if (fscanf(file, "%d", &node) != 1)
		node = -1;
	fclose(file);
	return node;
}
