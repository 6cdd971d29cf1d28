/*
 * Marks of the part of a program that tests/bed/vm --profile counts: instructions that do nothing,
 * each with a number that tests/bed/count-plugin.c looks for.
 */
#define MARK_BEGIN	0x6e696762	/* "bgin" */
#define MARK_END	0x21646e65	/* "end!" */

/* nopl NUMBER(%rax) */
#define MARK_BYTES	7
#define MARK_CODE(number)	\
	{ 0x0f, 0x1f, 0x80, (number) & 255, (number) >> 8 & 255, (number) >> 16 & 255,	\
	  (number) >> 24 }
#define MARK(number)	asm volatile("nopl %c0(%%rax)" : : "i" (number) : "memory")
