/* Clients that send requests over and over: load BOARD PORT CONNECTIONS PAUSE REQUEST...
 *
 * Every connection sends the bytes in a file REQUEST, reads the answer, and begins again, until the
 * process is ended. Of several files the connections send one after the other, each beginning with
 * another one. They pause for PAUSE microseconds on average, of which each is chosen by chance
 * between a half and one and a half; after a refusal (not 200) for as long as `retry-after` says
 * instead, as SDKs do. The board counts what is received.
 */

#include "shared.h"

enum { HEAD, LENGTH, SIZE, DATA, DATA_END, TRAILER };

struct client {
    int fd, state, match, open;
    size_t written, got, left, next;
    uint64_t sent_at, due, refused;
    size_t have;
    char head[8192];
};

static board_t *board;
static struct { char *bytes; size_t size; } requests[64];
static size_t request_count;
static uint64_t pause_ns;
static struct client *clients;
static int wanted, timer;
static struct sockaddr_in target = {.sin_family = AF_INET};
static int ep;
static char buffer[1 << 18];

/* Wake up when the first of the clients that pause is due. */
static void set_timer(void)
{
    uint64_t first = 0;
    for (int i = 0; i < wanted; i++)
        if (clients[i].due && (!first || clients[i].due < first))
            first = clients[i].due;
    struct itimerspec at = {.it_value = {(time_t)(first / 1000000000), (long)(first % 1000000000)}};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL) < 0)
        die("timerfd_settime");
}

static void begin(struct client *c)
{
    c->due = 0;
    c->state = HEAD;
    c->have = c->got = c->left = c->written = 0;
    c->match = 0;
    c->sent_at = now_ns();
    c->next = (c->next + 1) % request_count;
    ssize_t n = write(c->fd, requests[c->next].bytes, requests[c->next].size);
    c->written = n > 0 ? (size_t)n : 0;
    if (c->written < requests[c->next].size)
        watch(ep, c->fd, EPOLLIN | EPOLLOUT, c, EPOLL_CTL_MOD);
}

static void dial(struct client *c)
{
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0)
        die("socket");
    while (connect(c->fd, (struct sockaddr *)&target, sizeof target) < 0) {
        board[ERRORS]++;
        usleep(10000);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->open = 0;
    watch(ep, c->fd, EPOLLIN, c, EPOLL_CTL_ADD);
    begin(c);
}

static void redial(struct client *c, int error)
{
    board[ERRORS] += (uint64_t)error;
    if (c->open)
        board[STREAMS]--;
    close(c->fd);
    dial(c);
}

static void complete(struct client *c)
{
    board[REQUESTS]++;
    if (c->open)
        board[STREAMS]--;
    c->open = 0;
    if (!board[SMALLEST] || c->got < board[SMALLEST])
        board[SMALLEST] = c->got;
    if (c->got > board[LARGEST])
        board[LARGEST] = c->got;
    uint64_t wait = pause_ns / 2 + (pause_ns ? (uint64_t)rand() % pause_ns : 0);
    if (c->refused)
        wait = c->refused;
    if (!wait) {
        begin(c);
        return;
    }
    c->state = HEAD;
    c->have = 0;
    c->due = now_ns() + wait;
    set_timer();
}

static void body(struct client *c, size_t size)
{
    if (!size)
        return;
    if (!c->got) {
        board[HEAD_SIZE + board[SAMPLES] % RING] = now_ns() - c->sent_at;
        board[SAMPLES]++;
        board[STREAMS]++;
        c->open = 1;
    }
    c->got += size;
    board[BYTES] += size;
}

/* The head is complete: how long is the body? */
static int read_head(struct client *c)
{
    c->head[c->have] = 0;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    char *after = strcasestr(c->head, "\r\nretry-after:");
    c->refused = 0;
    if (strncmp(c->head, "HTTP/1.1 200", 12)) {
        board[ERRORS]++;
        if (after)
            c->refused = (uint64_t)atol(after + 14) * 1000000000;
    }
    if (length) {
        c->state = LENGTH;
        c->left = (size_t)atol(length + 17);
        return 0;
    }
    c->state = SIZE;
    c->left = 0;
    return strcasestr(c->head, "\r\ntransfer-encoding: chunked") ? 0 : -1;
}

/* 1: the response is complete, 0: more must come, -1: this is no HTTP. */
static int feed(struct client *c, const char *at, const char *end)
{
    while (at < end) {
        size_t some = (size_t)(end - at);
        switch (c->state) {
        case HEAD:
            if (c->have == sizeof c->head - 1)
                return -1;
            c->head[c->have++] = *at;
            c->match = *at == "\r\n\r\n"[c->match] ? c->match + 1 : *at == '\r';
            at++;
            if (c->match == 4) {
                if (read_head(c) < 0)
                    return -1;
                if (c->state == LENGTH && !c->left)
                    return 1;
            }
            break;
        case LENGTH:
            some = some < c->left ? some : c->left;
            body(c, some);
            at += some;
            c->left -= some;
            if (!c->left)
                return 1;
            break;
        case SIZE:
            if (*at == '\n') {
                c->state = c->left ? DATA : TRAILER;
            } else if (*at != '\r') {
                int digit = *at <= '9' ? *at - '0' : (*at | 32) - 'a' + 10;
                if (digit < 0 || digit > 15)
                    return -1;
                c->left = c->left * 16 + (size_t)digit;
            }
            at++;
            break;
        case DATA:
            some = some < c->left ? some : c->left;
            body(c, some);
            at += some;
            c->left -= some;
            if (!c->left)
                c->state = DATA_END;
            break;
        case DATA_END:
            if (*at++ == '\n')
                c->state = SIZE;
            break;
        case TRAILER:
            if (*at++ == '\n')
                return 1;
            break;
        }
    }
    return 0;
}

static void receive(struct client *c)
{
    ssize_t n = read(c->fd, buffer, sizeof buffer);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        redial(c, c->have > 0);
        return;
    }
    switch (feed(c, buffer, buffer + n)) {
    case 1:
        complete(c);
        break;
    case -1:
        redial(c, 1);
    }
}

/* Begin with the clients that are due. */
static void resume(void)
{
    uint64_t now = now_ns();
    for (int i = 0; i < wanted; i++)
        if (clients[i].due && clients[i].due <= now)
            begin(&clients[i]);
    set_timer();
}

static void push(struct client *c)
{
    size_t size = requests[c->next].size;
    ssize_t n = write(c->fd, requests[c->next].bytes + c->written, size - c->written);
    if (n > 0)
        c->written += (size_t)n;
    if (c->written == size)
        watch(ep, c->fd, EPOLLIN, c, EPOLL_CTL_MOD);
}

int main(int argc, char **argv)
{
    if (argc < 6 || argc > 5 + (int)(sizeof requests / sizeof *requests))
        return 2;
    live_and_die_with_parent();
    board = open_board(argv[1]);
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    target.sin_port = htons((uint16_t)atoi(argv[2]));
    int have = 0;
    wanted = atoi(argv[3]);
    pause_ns = (uint64_t)atol(argv[4]) * 1000;
    for (; argv[5 + request_count]; request_count++)
        requests[request_count].bytes =
            slurp(argv[5 + request_count], &requests[request_count].size);
    clients = calloc((size_t)wanted, sizeof *clients);
    for (int i = 0; i < wanted; i++)
        clients[i].next = (size_t)i % request_count;
    ep = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    watch(ep, timer, EPOLLIN, NULL, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event found[256];
        for (int i = 0; have < wanted && i < 4; i++)
            dial(&clients[have++]); /* a few at a time: a thousand at once would be unusual */
        board[READY] = have == wanted;
        int count = epoll_wait(ep, found, 256, have < wanted ? 1 : -1);
        for (int i = 0; i < count; i++) {
            struct client *c = found[i].data.ptr;
            if (!c) {
                resume();
                continue;
            }
            if (found[i].events & EPOLLOUT)
                push(c);
            if (found[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                receive(c);
        }
    }
}
