/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* PCI devices by their addresses, as sysfs shows them. */
#ifndef FDMABUF_PCI_H
#define FDMABUF_PCI_H

#include <stdbool.h>
#include <stdint.h>

#define PCI_ADDRESS_SIZE 24	/* bytes; DOMAIN:BUS:DEV.FN, whose domain has up to 8 digits */
#define PCI_NAME_SIZE 64	/* bytes; for the name of a driver or the number of a group */

/*
 * Accepts only the form that sysfs uses, so that the address is safe in a path. A domain has four
 * digits or more: Intel's VMD makes domains from 10000 on.
 */
bool is_pci_address(const char *address);

/*
 * Reads a symbolic link, and stores the last component of its target. Returns false if there is no
 * such link.
 */
bool read_last_component(const char *path, char name[PCI_NAME_SIZE]);

/* The same for a link in the directory of a PCI device. */
bool pci_read_link(const char *address, const char *link, char name[PCI_NAME_SIZE]);

/* Returns the number of the NUMA node that the device is near to, or -1 if there is none. */
int pci_numa_node(const char *address);

/* Returns the size of the biggest memory BAR of a PCI device in bytes, or 0 if there is none. */
uint64_t pci_biggest_bar(const char *address);

#endif
