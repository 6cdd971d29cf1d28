// SPDX-License-Identifier: GPL-2.0-only
/* A PCI bus in a domain of its own with one function: configuration space, BAR, interrupt. */
#include <linux/irq.h>
#include <linux/numa.h>
#include <linux/unaligned.h>

#include "controller.h"

#define DOMAIN	0x7e57

/* Returns the bits that the host may write. All other bits keep their value. */
static u32 writable(int where)
{
	switch (where) {
	case PCI_COMMAND:
		return PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
		       PCI_COMMAND_INTX_DISABLE;
	case PCI_BASE_ADDRESS_0:
		return (u32)~(BAR_SIZE - 1);
	case PCI_BASE_ADDRESS_1:
		return U32_MAX;
	default:
		return 0;
	}
}

static bool is_there(unsigned int devfn, int where, int size)
{
	return !devfn && where + size <= PCI_CFG_SPACE_SIZE;
}

static int config_read(struct pci_bus *bus, unsigned int devfn, int where,
		       int size, u32 *value)
{
	struct controller *controller =
		container_of(bus->sysdata, struct controller, sysdata);

	if (!is_there(devfn, where, size)) {
		*value = U32_MAX;
		return PCIBIOS_DEVICE_NOT_FOUND;
	}
	*value = 0;
	memcpy(value, controller->config + where, size);
	return PCIBIOS_SUCCESSFUL;
}

static int config_write(struct pci_bus *bus, unsigned int devfn, int where,
			int size, u32 value)
{
	struct controller *controller =
		container_of(bus->sysdata, struct controller, sysdata);
	u8 *config = controller->config + (where & ~3);
	u32 mask = writable(where & ~3), shift = (where & 3) * BITS_PER_BYTE;

	if (!is_there(devfn, where, size))
		return PCIBIOS_DEVICE_NOT_FOUND;
	if (size < 4)
		mask &= GENMASK(size * BITS_PER_BYTE - 1, 0) << shift;
	put_unaligned_le32((get_unaligned_le32(config) & ~mask) |
			   ((value << shift) & mask), config);
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops bus_ops = {
	.read = config_read,
	.write = config_write,
};

static void fill_config(u8 *config, phys_addr_t registers)
{
	put_unaligned_le16(PCI_VENDOR_ID_REDHAT, config + PCI_VENDOR_ID);
	put_unaligned_le16(0x7e57, config + PCI_DEVICE_ID);
	put_unaligned_le32(PCI_CLASS_STORAGE_EXPRESS << 8, config + PCI_CLASS_REVISION);
	put_unaligned_le32(registers | PCI_BASE_ADDRESS_MEM_TYPE_64,
			   config + PCI_BASE_ADDRESS_0);
}

int bus_add(struct controller *controller, phys_addr_t registers)
{
	struct pci_dev *function;
	LIST_HEAD(resources);

	controller->irq = irq_alloc_desc(NUMA_NO_NODE);
	if (controller->irq < 0)
		return controller->irq;
	irq_set_chip_and_handler(controller->irq, &dummy_irq_chip, handle_simple_irq);

	fill_config(controller->config, registers);
	controller->sysdata.domain = DOMAIN;
	controller->sysdata.node = NUMA_NO_NODE;
	controller->window = (struct resource)
		DEFINE_RES_MEM_NAMED(registers, BAR_SIZE, "nvme_test");
	pci_add_resource(&resources, &controller->window);

	pci_lock_rescan_remove();
	controller->bus = pci_scan_root_bus(NULL, 0, &bus_ops,
					    &controller->sysdata, &resources);
	if (!controller->bus) {
		pci_unlock_rescan_remove();
		pci_free_resource_list(&resources);
		irq_free_desc(controller->irq);
		return -ENOMEM;
	}
	pci_bus_claim_resources(controller->bus);
	/* The function has neither an interrupt pin to look up nor MSI. */
	list_for_each_entry(function, &controller->bus->devices, bus_list)
		function->irq = controller->irq;
	pci_bus_add_devices(controller->bus);
	pci_unlock_rescan_remove();
	return 0;
}

void bus_remove(struct controller *controller)
{
	struct pci_host_bridge *bridge = to_pci_host_bridge(controller->bus->bridge);

	pci_lock_rescan_remove();
	pci_stop_root_bus(controller->bus);
	pci_remove_root_bus(controller->bus);
	pci_unlock_rescan_remove();
	/* pci_remove_root_bus() leaves the reference of the creator. */
	pci_free_host_bridge(bridge);
	irq_free_desc(controller->irq);
}
