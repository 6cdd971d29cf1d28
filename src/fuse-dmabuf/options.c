/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parses the options of "fuse-dmabuf load". */
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/text.h"
#include "complain.h"
#include "exit-code.h"
#include "options.h"

static const char usage[] =
	"usage: fuse-dmabuf load FILE --into DESTINATION [OPTIONS]\n"
	"\n"
	"Reads a safetensors file into a destination. The byte at offset X of the file goes to\n"
	"offset X of the destination.\n"
	"\n"
	"  --into udmabuf                  host memory as a dma-buf\n"
	"  --into heap, --into drm         memory of a dma-heap, or of a GPU with a driver in the\n"
	"                                  kernel; \"fuse-dmabuf exporters\" lists what there is\n"
	"  --into vfio:DOMAIN:BUS:DEV.FN   the largest memory BAR of a device bound to vfio-pci\n"
	"  --into cuda[:NUMBER|:DOMAIN:BUS:DEV.FN]  memory of an NVIDIA GPU (default: the first)\n"
	"  --into hip[:NUMBER|:DOMAIN:BUS:DEV.FN]   memory of an AMD GPU (default: the first)\n"
	"  --into memory                   ordinary host memory (no token)\n"
	"  --path auto|direct|bounce       auto: direct if possible, else bounce;\n"
	"                                  direct: fail if it is not possible (default: auto)\n"
	"  --depth N                       requests in flight (default: 16)\n"
	"  --chunk SIZE                    bytes of one request, with K, M or G (default: 4M)\n"
	"  --wait SECONDS                  wait so long for a mount whose server has ended,\n"
	"                                  0 to 3600 (default: 10)\n"
	"  --copy-threads N                threads that copy at most, 0 to 256; 0: none\n"
	"                                  (default: as many as help)\n"
	"  --proof once|always|never       compare some blocks before trusting the direct path\n"
	"                                  (default: once)\n"
	"  --verify                        compare each tensor with an ordinary read of the file\n"
	"  --json                          print the summary as JSON\n"
	"  -h, --help                      this text\n"
	"\n"
	"Exit status: 0 success, 1 failed on the way, 2 bad usage or input (nothing was read),\n"
	"128 plus the number of the signal if interrupted.\n";

/* Options without a short form: their values are no characters. */
enum {
	OPTION_INTO = 256,
	OPTION_PATH,
	OPTION_DEPTH,
	OPTION_CHUNK,
	OPTION_WAIT,
	OPTION_COPY_THREADS,
	OPTION_PROOF,
	OPTION_VERIFY,
	OPTION_JSON,
};

static const struct option long_options[] = {
	{ "into", required_argument, NULL, OPTION_INTO },
	{ "path", required_argument, NULL, OPTION_PATH },
	{ "depth", required_argument, NULL, OPTION_DEPTH },
	{ "chunk", required_argument, NULL, OPTION_CHUNK },
	{ "wait", required_argument, NULL, OPTION_WAIT },
	{ "copy-threads", required_argument, NULL, OPTION_COPY_THREADS },
	{ "proof", required_argument, NULL, OPTION_PROOF },
	{ "verify", no_argument, NULL, OPTION_VERIFY },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static bool parse_path(const char *text, enum fdmabuf_path *path)
{
	static const char *const names[] = {
		[FDMABUF_AUTO] = "auto",
		[FDMABUF_DIRECT] = "direct",
		[FDMABUF_BOUNCE] = "bounce",
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (!strcmp(text, names[i])) {
			*path = i;
			return true;
		}
	}
	complain("--path %s: use auto, direct or bounce", text);
	return false;
}

static bool parse_proof(const char *text, enum fdmabuf_proof *proof)
{
	static const char *const names[] = {
		[FDMABUF_PROOF_ONCE] = "once",
		[FDMABUF_PROOF_ALWAYS] = "always",
		[FDMABUF_PROOF_NEVER] = "never",
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (!strcmp(text, names[i])) {
			*proof = i;
			return true;
		}
	}
	complain("--proof %s: use once, always or never", text);
	return false;
}

static bool parse_depth(const char *text, uint32_t *depth)
{
	uint64_t number;

	if (!parse_number(text, FDMABUF_DEPTH_MAX, &number) || !number) {
		complain("--depth %s: give a number from 1 to %u", text, FDMABUF_DEPTH_MAX);
		return false;
	}
	*depth = number;
	return true;
}

static bool parse_chunk(const char *text, uint32_t *chunk)
{
	uint64_t size;

	if (!parse_size(text, &size) || !size || size > FDMABUF_CHUNK_MAX || size % 4096) {
		complain("--chunk %s: give a multiple of 4K up to %uM, for example 1M", text,
			 FDMABUF_CHUNK_MAX >> 20);
		return false;
	}
	*chunk = size;
	return true;
}

static bool parse_wait(const char *text, uint32_t *mount_wait)
{
	uint64_t seconds;

	if (!parse_number(text, FDMABUF_MOUNT_WAIT_MAX / 1000, &seconds)) {
		complain("--wait %s: give seconds from 0 to %u", text,
			 FDMABUF_MOUNT_WAIT_MAX / 1000);
		return false;
	}
	*mount_wait = seconds ? seconds * 1000 : FDMABUF_MOUNT_WAIT_NONE;
	return true;
}

static bool parse_copy_threads(const char *text, uint32_t *copy_threads)
{
	uint64_t number;

	if (!parse_number(text, FDMABUF_COPY_THREADS_MAX, &number)) {
		complain("--copy-threads %s: give a number from 0 to %u", text,
			 FDMABUF_COPY_THREADS_MAX);
		return false;
	}
	*copy_threads = number ? number : FDMABUF_COPY_THREADS_NONE;
	return true;
}

static bool parse_option(int option, const char *text, struct load_options *options)
{
	switch (option) {
	case OPTION_INTO:
		options->into = optarg;
		return true;
	case OPTION_PATH:
		return parse_path(optarg, &options->path);
	case OPTION_DEPTH:
		return parse_depth(optarg, &options->depth);
	case OPTION_CHUNK:
		return parse_chunk(optarg, &options->chunk);
	case OPTION_WAIT:
		return parse_wait(optarg, &options->mount_wait);
	case OPTION_PROOF:
		return parse_proof(optarg, &options->proof);
	case OPTION_COPY_THREADS:
		return parse_copy_threads(optarg, &options->copy_threads);
	case OPTION_VERIFY:
		return options->verify = true;
	case OPTION_JSON:
		return options->json = true;
	case ':':
		complain("%s needs a value: see fuse-dmabuf load --help", text);
		return false;
	default:
		complain("%s: unknown option: see fuse-dmabuf load --help", text);
		return false;
	}
}

int parse_load_options(int argc, char **argv, struct load_options *options)
{
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
		if (option == 'h') {
			options->file = NULL;
			return fputs(usage, stdout) < 0 ? EXIT_FAILED : 0;
		}
		if (!parse_option(option, argv[optind - 1], options))
			return EXIT_BAD_INPUT;
	}
	if (argc - optind != 1) {
		complain("give one FILE, not %d: see fuse-dmabuf load --help", argc - optind);
		return EXIT_BAD_INPUT;
	}
	if (!options->into) {
		complain("give a destination: --into cuda, --into vfio:DOMAIN:BUS:DEV.FN or "
			 "--into udmabuf");
		return EXIT_BAD_INPUT;
	}
	options->file = argv[optind];
	return 0;
}
