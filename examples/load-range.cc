// SPDX-License-Identifier: GPL-2.0-or-later
//
// Loads a part of a file that may begin and end anywhere, as a tensor does, and writes it to
// standard output. In C++: objects of the library end with their scope, failures are exceptions.
//
//	c++ -o load-range load-range.cc $(pkg-config --cflags --libs fuse-dmabuf)
//	./load-range model.safetensors 8192001 65536 cuda:0 >tensor
//
// The exporter is "memory" unless the last argument names another.

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <fuse-dmabuf.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Deleter {
	void operator()(fdmabuf_file *file) const { fdmabuf_file_close(file); }
	void operator()(fdmabuf_buffer *buffer) const { fdmabuf_buffer_free(buffer); }
	void operator()(fdmabuf_queue *queue) const { fdmabuf_queue_close(queue); }
};

template<typename Object> using Pointer = std::unique_ptr<Object, Deleter>;

std::int64_t check(std::int64_t result)
{
	if (result < 0)
		throw std::runtime_error(fdmabuf_error());
	return result;
}

Pointer<fdmabuf_file> open_file(const std::string &path)
{
	fdmabuf_file *file;

	check(fdmabuf_file_open(path.c_str(), O_RDONLY, 0, &file));
	return Pointer<fdmabuf_file>(file);
}

Pointer<fdmabuf_buffer> allocate_buffer(const std::string &exporter, std::uint64_t size)
{
	fdmabuf_buffer *buffer;

	check(fdmabuf_buffer_allocate(exporter.c_str(), size, &buffer));
	return Pointer<fdmabuf_buffer>(buffer);
}

Pointer<fdmabuf_queue> open_queue()
{
	fdmabuf_queue *queue;

	check(fdmabuf_queue_open(nullptr, &queue));
	return Pointer<fdmabuf_queue>(queue);
}

// The direct path needs offsets in file and buffer that are equal modulo the block size, so the
// bytes go as far into the first block of the buffer as they are in their block of the file. The
// buffer has room for whole blocks, which FDMABUF_WHOLE_BLOCKS reads: the CPU copies nothing.
void load_range(const std::string &path, std::uint64_t offset, std::uint64_t length,
		const std::string &exporter)
{
	const auto file = open_file(path);
	const std::uint64_t block = fdmabuf_file_block_size(file.get()), skip = offset % block;
	const auto buffer = allocate_buffer(exporter, (skip + length + block - 1) / block * block);
	const auto queue = open_queue();
	const fdmabuf_range range{file.get(), offset, buffer.get(), skip, length};
	const auto bytes = check(fdmabuf_read(queue.get(), &range, 1, FDMABUF_WHOLE_BLOCKS));
	std::vector<char> content(bytes);

	check(fdmabuf_buffer_read(buffer.get(), skip, content.data(), content.size()));
	if (std::fwrite(content.data(), 1, content.size(), stdout) < content.size() ||
	    std::fflush(stdout))
		throw std::runtime_error("standard output cannot be written");
	if (content.size() < length)
		throw std::runtime_error(path + ": ends after " + std::to_string(bytes) +
					 " bytes of the range");
}

} // namespace

int main(int argc, char **argv)
try {
	if (argc < 4 || argc > 5) {
		std::fprintf(stderr, "usage: load-range FILE OFFSET LENGTH [EXPORTER]\n");
		return 2;
	}
	load_range(argv[1], std::stoull(argv[2]), std::stoull(argv[3]),
		   argc > 4 ? argv[4] : "memory");
	return 0;
} catch (const std::exception &exception) {
	std::fprintf(stderr, "load-range: %s\n", exception.what());
	return 1;
}
