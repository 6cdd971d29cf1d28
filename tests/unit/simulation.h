/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A file and a buffer for tests of the library on a simulated kernel. */
#ifndef SIMULATION_H
#define SIMULATION_H

#include "buffer/buffer.h"
#include "file/file.h"

#define BLOCK 4096u
#define CHUNK (4 * BLOCK)
#define BUFFER_SIZE (64 * BLOCK)
#define UNTOUCHED 0xee	/* content of the buffer before a transfer */
/* Device number of a mount whose server ends. Files opened by their path have another one. */
#define OLD_MOUNT_DEVICE 1

extern struct fdmabuf_file *file;
extern struct fdmabuf_buffer *buffer;
extern char file_name[], other_name[];
extern unsigned char memory[BUFFER_SIZE];	/* of the buffer */
extern unsigned char expected[BUFFER_SIZE];	/* of the file, as given */

/* Returns the byte that a file has at @offset. */
unsigned char content_at(uint64_t offset);

/*
 * Makes a new file of @size bytes and a new buffer, and puts the simulation at its start. Each
 * character of @map stands for a block: '.' is a hole, any other character is data.
 */
void given_file(const char *map, uint64_t size);

/*
 * Makes a file on a mount whose server ends when a test says so. The path leads to the file on the
 * new mount, but while it is hidden. (A symbolic link does that: renaming a file changes its
 * ctime.)
 */
void given_file_on_mount(const char *map, uint64_t size);
void hide_path(void);
void show_path(const char *name);

/* Opens a file with a name of its own, as given_file() does. The caller closes it. */
struct fdmabuf_file *open_simulated(const char *name, int flags);

/* Makes a buffer in @bytes, with @dmabuf_fd as its descriptor. The caller frees it. */
struct fdmabuf_buffer *make_simulated(unsigned char *bytes, uint64_t size, int dmabuf_fd);

/* Removes all files and buffers. */
void remove_given(void);

/* ------------------------------------------------- several files and buffers */

#define SEVERAL 3		/* files, and buffers */
#define MODEL_SIZE (2 * BUFFER_SIZE)	/* no test makes a file longer */

extern struct fdmabuf_file *files[SEVERAL];
extern struct fdmabuf_buffer *buffers[SEVERAL];
extern unsigned char memories[SEVERAL][BUFFER_SIZE];	/* of the buffers */
extern unsigned char models[SEVERAL][MODEL_SIZE];	/* what the files should have, */
extern uint64_t model_sizes[SEVERAL];			/* and how long they should be */

/*
 * Makes several files like those of given_file_on_mount(), with different content, and several
 * buffers that are untouched. @map is as there.
 */
void given_several(const char *map, uint64_t size);

/* Makes all bytes of the buffers UNTOUCHED again. */
void clear_memories(void);

/* Puts the files back on mounts whose server can end. */
void restore_mounts(void);

/* Checks that the files are what the models say. */
void check_models(void);

/* ---------------------------------------------------- queues and transfers */

/* Opens a queue with these options, whose size the function sets. */
struct fdmabuf_queue *queue_with(struct fdmabuf_queue_options options);

/* Opens a queue with requests of CHUNK bytes that proves nothing. Zeros are defaults. */
struct fdmabuf_queue *given_queue(enum fdmabuf_path path, uint32_t depth, uint32_t tokens);

struct fdmabuf_range range_of(unsigned file_number, uint64_t file_offset, unsigned buffer_number,
			      uint64_t buffer_offset, uint64_t length);

void shuffle_ranges(struct fdmabuf_range *ranges, size_t count, unsigned long long *random);

/* Starts a transfer, which has to succeed. wait_for() waits for its end. */
struct fdmabuf_transfer *start(struct fdmabuf_queue *queue, enum fdmabuf_direction direction,
			       const struct fdmabuf_range *ranges, size_t count, unsigned flags);
void wait_for(struct fdmabuf_transfer *transfer);

struct fdmabuf_result result_of_range(const struct fdmabuf_transfer *transfer, size_t index);
struct fdmabuf_counters counters_of_queue(const struct fdmabuf_queue *queue);

/* Checks that the range has arrived, and that at most @margin bytes on each side have changed. */
void check_arrived(uint64_t from, uint64_t at, uint64_t length, uint64_t margin);

#endif
