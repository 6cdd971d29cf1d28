/*
 * QEMU plugin of tests/bed/vm --profile: counts how often each kernel instruction is executed.
 *
 * A program in the guest says what is counted: it executes MARK_BEGIN and MARK_END of
 * tests/bench/marks.h, which do nothing on a processor. At each MARK_END the counts are written to
 * the file DIRECTORY/counts-N (N is 0 the first time): a line with the address and the count of
 * each instruction that was executed, and a line "user" with the count of all instructions of
 * programs. Addresses in hexadecimal. The machine must have one processor.
 *
 * Debian has no package with qemu-plugin.h: what is needed of it is declared here.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../bench/marks.h"

#define PUBLIC		__attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct plugin_tb;
struct plugin_insn;
struct plugin_scoreboard;
struct plugin_u64 {
	struct plugin_scoreboard *score;
	size_t offset;
};

enum { CB_NO_REGS };
enum { INLINE_ADD_U64 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
					   void (*callback)(plugin_id, struct plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct plugin_tb *tb);
struct plugin_insn *qemu_plugin_tb_get_insn(const struct plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct plugin_insn *insn);
size_t qemu_plugin_insn_data(const struct plugin_insn *insn, void *data, size_t bytes);
void qemu_plugin_register_vcpu_insn_exec_cb(struct plugin_insn *insn,
					    void (*callback)(unsigned int, void *), int flags,
					    void *data);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct plugin_insn *insn, int op,
							 struct plugin_u64 counter,
							 uint64_t value);
struct plugin_scoreboard *qemu_plugin_scoreboard_new(size_t bytes);
void *qemu_plugin_scoreboard_find(struct plugin_scoreboard *score, unsigned int vcpu);

/* The kernel has 3 million instructions; most are never executed, and these get no counter. */
#define COUNTERS	(1u << 20)
#define BUCKETS		(1u << 22)
#define USER		0	/* the counter of programs */

static uint64_t addresses[COUNTERS];	/* of each counter */
static unsigned int counters = 1;
static uint32_t buckets[BUCKETS];	/* hash table of counters by address; 0: empty */
static struct plugin_scoreboard *score;	/* an array of COUNTERS counts */
static const char *directory;
static unsigned int windows;		/* how many were counted */

static void fail(const char *what)
{
	fprintf(stderr, "count-plugin: %s\n", what);
	exit(1);
}

/* Returns the number of the counter of an instruction. */
static unsigned int find_counter(uint64_t address)
{
	uint32_t bucket = address * 0x9E3779B97F4A7C15 >> 42;

	if (!(address >> 63))
		return USER;
	for (; buckets[bucket]; bucket = (bucket + 1) % BUCKETS)
		if (addresses[buckets[bucket]] == address)
			return buckets[bucket];
	if (counters == COUNTERS)
		fail("more instructions than counters");
	addresses[counters] = address;
	buckets[bucket] = counters;
	return counters++;
}

static void begin(unsigned int vcpu, void *unused)
{
	(void)unused;
	memset(qemu_plugin_scoreboard_find(score, vcpu), 0, COUNTERS * sizeof(uint64_t));
}

static void end(unsigned int vcpu, void *unused)
{
	const uint64_t *counts = qemu_plugin_scoreboard_find(score, vcpu);
	char path[4096];
	FILE *file;

	(void)unused;
	snprintf(path, sizeof(path), "%s/counts-%u", directory, windows++);
	file = fopen(path, "w");
	if (!file)
		fail(strerror(errno));
	fprintf(file, "user %" PRIu64 "\n", counts[USER]);
	for (unsigned int i = USER + 1; i < counters; i++)
		if (counts[i])
			fprintf(file, "%" PRIx64 " %" PRIu64 "\n", addresses[i], counts[i]);
	if (fclose(file))
		fail(strerror(errno));
}

static bool is_mark(const struct plugin_insn *insn, uint32_t mark)
{
	const uint8_t bytes[MARK_BYTES] = MARK_CODE(mark);
	uint8_t data[MARK_BYTES];

	return qemu_plugin_insn_data(insn, data, sizeof(data)) == sizeof(data) &&
	       !memcmp(data, bytes, sizeof(bytes));
}

static void translate(plugin_id id, struct plugin_tb *tb)
{
	struct plugin_u64 counter = { .score = score };
	struct plugin_insn *insn;
	uint64_t address;

	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		insn = qemu_plugin_tb_get_insn(tb, i);
		address = qemu_plugin_insn_vaddr(insn);
		counter.offset = find_counter(address) * sizeof(uint64_t);
		qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, INLINE_ADD_U64, counter,
								    1);
		if (is_mark(insn, MARK_BEGIN))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, CB_NO_REGS, NULL);
		else if (is_mark(insn, MARK_END))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, end, CB_NO_REGS, NULL);
	}
}

PUBLIC int qemu_plugin_version = 3;	/* the first one with scoreboards is 2 */

/* The one argument is directory=DIRECTORY. */
PUBLIC int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
	static const char key[] = "directory=";

	(void)info;
	if (argc != 1 || strncmp(argv[0], key, strlen(key)))
		return -1;
	directory = strdup(argv[0] + strlen(key));
	score = qemu_plugin_scoreboard_new(COUNTERS * sizeof(uint64_t));
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	return 0;
}
