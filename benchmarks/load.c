/* Clients that send one request over and over: load BOARD PORT CONNECTIONS REQUEST.
 *
 * Every connection sends the bytes in the file REQUEST, reads the answer, and begins again, until
 * the process is ended. The board counts what is received.
 */

#include "shared.h"

enum { HEAD, LENGTH, SIZE, DATA, DATA_END, TRAILER };

struct client {
    int fd, state, match, open;
    size_t written, got, left;
    uint64_t sent_at;
    size_t have;
    char head[8192];
};

static board_t *board;
static char *request;
static size_t request_size;
static struct sockaddr_in target = {.sin_family = AF_INET};
static int ep;
static char buffer[1 << 18];

static void begin(struct client *c)
{
    c->state = HEAD;
    c->have = c->got = c->left = c->written = 0;
    c->match = 0;
    c->sent_at = now_ns();
    ssize_t n = write(c->fd, request, request_size);
    c->written = n > 0 ? (size_t)n : 0;
    if (c->written < request_size)
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
    begin(c);
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
    if (strncmp(c->head, "HTTP/1.1 200", 12))
        board[ERRORS]++;
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

static void push(struct client *c)
{
    ssize_t n = write(c->fd, request + c->written, request_size - c->written);
    if (n > 0)
        c->written += (size_t)n;
    if (c->written == request_size)
        watch(ep, c->fd, EPOLLIN, c, EPOLL_CTL_MOD);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    live_and_die_with_parent();
    board = open_board(argv[1]);
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    target.sin_port = htons((uint16_t)atoi(argv[2]));
    int wanted = atoi(argv[3]), have = 0;
    request = slurp(argv[4], &request_size);
    struct client *clients = calloc((size_t)wanted, sizeof *clients);
    ep = epoll_create1(0);
    for (;;) {
        struct epoll_event found[256];
        for (int i = 0; have < wanted && i < 4; i++)
            dial(&clients[have++]); /* a few at a time: a thousand at once would be unusual */
        board[READY] = have == wanted;
        int count = epoll_wait(ep, found, 256, have < wanted ? 1 : -1);
        for (int i = 0; i < count; i++) {
            struct client *c = found[i].data.ptr;
            if (found[i].events & EPOLLOUT)
                push(c);
            if (found[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                receive(c);
        }
    }
}
