/* What the mock upstream and the load generator have in common. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* The board: 64-bit numbers in a file that the benchmark maps too (traffic.py names them). */
enum {
    READY = 0, /* the upstream's port; 1 for the load */
    REQUESTS,  /* requests read, or responses complete */
    EVENTS,    /* paced events sent */
    STREAMS,   /* paced streams open, or responses that have begun and not ended */
    ERRORS,
    BYTES,     /* of bodies */
    SMALLEST,  /* body of a complete response */
    LARGEST,
    FINISH,    /* set by the benchmark: end all paced streams now */
    SAMPLES,   /* latencies measured */
    HEAD_SIZE = 16,
    RING = 65536, /* latencies in ns follow */
};

typedef volatile uint64_t board_t;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static board_t *open_board(const char *path)
{
    int fd = open(path, O_RDWR);
    if (fd < 0)
        die(path);
    void *map = mmap(NULL, (HEAD_SIZE + RING) * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        die("mmap");
    close(fd);
    return map;
}

static char *slurp(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) < 0)
        die(path);
    *size = (size_t)info.st_size;
    char *data = malloc(*size + 1);
    if (read(fd, data, *size) != info.st_size)
        die(path);
    data[*size] = 0;
    close(fd);
    return data;
}

static void live_and_die_with_parent(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1);
    signal(SIGPIPE, SIG_IGN);
}

static void watch(int ep, int fd, uint32_t events, void *what, int op)
{
    struct epoll_event event = {.events = events, .data = {.ptr = what}};
    if (epoll_ctl(ep, op, fd, &event) < 0)
        die("epoll_ctl");
}
