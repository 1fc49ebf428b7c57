/* A mock of vendors' APIs: upstream BOARD FOLDER.
 *
 * The path says which API it is. The model of a request says what the answer is: `whole`, `burst-N`
 * (a stream of N events, written at once as one HTTP chunk), `chunks-N` (written at once, an HTTP
 * chunk an event), `paced-N-R` (R events a second, each a packet of its own; the first comes with
 * the head), `alone-N-R` (the same, but no two streams wait for the same tick). FOLDER holds the
 * list of the APIs and the bytes, see vendors.py.
 */

#include "shared.h"

#define LIMIT 65536
/* Paced streams are spread evenly, to the millisecond: as event loops with timers would do it. It
 * decides how many events a gateway finds when it wakes, and with it what an event costs. */
#define TICK 1000000u
enum { USAGE, FORMATS = 32 }; /* the first format is OpenAI's with usage */

struct piece {
    char *data;
    size_t size;
};

struct format {
    char path[64], http[256];          /* a part of the path of requests; the head of streams */
    struct piece whole;                /* a complete HTTP response */
    struct piece raw_head, raw_tail;   /* events */
    struct piece head, tail;           /* HTTP head and chunks; chunks and the end */
    int count;
    struct piece raw[64], delta[64];   /* one event; as an HTTP chunk */
};

struct answer { /* cached */
    char model[64];
    int format;
    struct piece bytes;
    struct answer *next;
};

struct client {
    int fd, at; /* place in the heap, -1 if not in it */
    size_t have, left;
    const char *out;
    struct format *format;
    long sent, total;
    uint64_t due, interval;
    char in[LIMIT];
};

static board_t *board;
static struct format formats[FORMATS];
static int format_count;
static struct answer *answers;
static struct client **heap;
static int heaped, room;
static uint64_t begun;
static int ep;

static void append(struct piece *to, const char *data, size_t size)
{
    to->data = realloc(to->data, to->size + size);
    memcpy(to->data + to->size, data, size);
    to->size += size;
}

static void append_chunk(struct piece *to, struct piece chunk)
{
    char line[32];
    append(to, line, (size_t)sprintf(line, "%zx\r\n", chunk.size));
    append(to, chunk.data, chunk.size);
    append(to, "\r\n", 2);
}

static struct piece load(const char *folder, int number, const char *part)
{
    char path[4096];
    struct piece piece;
    snprintf(path, sizeof path, "%s/%d.%s", folder, number, part);
    piece.data = slurp(path, &piece.size);
    return piece;
}

static void prepare(const char *folder)
{
    char path[4096], media_type[64];
    size_t size_of_list;
    snprintf(path, sizeof path, "%s/formats", folder);
    char *line = strtok(slurp(path, &size_of_list), "\n");
    for (int i = 0; line && i < FORMATS; line = strtok(NULL, "\n"), format_count = ++i) {
        struct format *f = &formats[i];
        if (sscanf(line, "%*d %63s %63[^\n]", f->path, media_type) != 2)
            die("formats");
        sprintf(f->http, "HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"
                         "x-request-id: req_0123456789abcdef\r\n"
                         "transfer-encoding: chunked\r\n\r\n", media_type);
        struct piece body = load(folder, i, "whole");
        char head[256];
        int size = sprintf(head, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                                 "x-request-id: req_0123456789abcdef\r\n"
                                 "content-length: %zu\r\n\r\n", body.size);
        append(&f->whole, head, (size_t)size);
        append(&f->whole, body.data, body.size);
        f->raw_head = load(folder, i, "head");
        f->raw_tail = load(folder, i, "tail");
        append(&f->head, f->http, strlen(f->http));
        append_chunk(&f->head, f->raw_head);
        append_chunk(&f->tail, f->raw_tail);
        append(&f->tail, "0\r\n\r\n", 5);
        struct piece deltas = load(folder, i, "deltas");
        char *next = load(folder, i, "sizes").data, *at = deltas.data;
        for (size_t n; (n = strtoul(next, &next, 10)) && f->count < 64; at += n) {
            struct piece one = {at, n};
            f->raw[f->count] = one;
            append_chunk(&f->delta[f->count++], one);
        }
    }
}

/* the heap of paced streams, by the time of their next event */

static void place(int at, struct client *c)
{
    heap[at] = c;
    c->at = at;
}

static void sift(int at, struct client *c)
{
    while (at > 0 && heap[(at - 1) / 2]->due > c->due) {
        place(at, heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (int child; (child = 2 * at + 1) < heaped; at = child) {
        if (child + 1 < heaped && heap[child + 1]->due < heap[child]->due)
            child++;
        if (heap[child]->due >= c->due)
            break;
        place(at, heap[child]);
    }
    place(at, c);
}

static void schedule(struct client *c)
{
    if (heaped == room)
        heap = realloc(heap, sizeof *heap * (size_t)(room = room * 2 + 64));
    sift(heaped++, c);
    board[STREAMS]++;
}

static void unschedule(struct client *c)
{
    if (c->at < 0)
        return;
    int at = c->at;
    struct client *last = heap[--heaped];
    if (last != c)
        sift(at, last);
    c->at = -1;
    board[STREAMS]--;
}

/* clients */

static void drop(struct client *c)
{
    unschedule(c);
    close(c->fd);
    free(c);
}

static int put(struct client *c, const char *data, size_t size)
{
    ssize_t n = c->left ? 0 : write(c->fd, data, size);
    if (n < 0 && errno != EAGAIN)
        return -1;
    n = n < 0 ? 0 : n;
    if ((size_t)n == size)
        return 0;
    if (c->left)
        return -1; /* a client that does not read a paced stream */
    c->out = data + n;
    c->left = size - (size_t)n;
    watch(ep, c->fd, EPOLLIN | EPOLLOUT, c, EPOLL_CTL_MOD);
    return 0;
}

static int finish(struct client *c)
{
    unschedule(c);
    return put(c, c->format->tail.data, c->format->tail.size);
}

static int step(struct client *c)
{
    struct piece *delta = &c->format->delta[c->sent++ % c->format->count];
    if (put(c, delta->data, delta->size) < 0)
        return -1;
    board[EVENTS]++;
    if (c->sent >= c->total)
        return finish(c);
    c->due += c->interval;
    sift(c->at, c);
    return 0;
}

static struct piece *cached(const char *model, int which, long count, int chunks)
{
    struct format *f = &formats[which];
    struct answer *a;
    for (a = answers; a; a = a->next)
        if (a->format == which && !strcmp(a->model, model))
            return &a->bytes;
    a = calloc(1, sizeof *a);
    strcpy(a->model, model);
    a->format = which;
    a->next = answers;
    answers = a;
    if (chunks) {
        append(&a->bytes, f->head.data, f->head.size);
        for (long i = 0; i < count; i++)
            append(&a->bytes, f->delta[i % f->count].data, f->delta[i % f->count].size);
        append(&a->bytes, f->tail.data, f->tail.size);
    } else {
        struct piece body = f->raw_head;
        body.data = memcpy(malloc(body.size), body.data, body.size);
        for (long i = 0; i < count; i++)
            append(&body, f->raw[i % f->count].data, f->raw[i % f->count].size);
        append(&body, f->raw_tail.data, f->raw_tail.size);
        append(&a->bytes, f->http, strlen(f->http));
        append_chunk(&a->bytes, body);
        append(&a->bytes, "0\r\n\r\n", 5);
    }
    return &a->bytes;
}

static int answer(struct client *c, char *head, const char *body)
{
    static const char *kinds[] = {"burst-", "chunks-", "paced-", "alone-"};
    char model[64] = "", *end = strstr(head, "\r\n");
    long count = 0, rate = 0;
    int which = strstr(body, "\"include_usage\":true") ? USAGE : USAGE + 1;
    if (end)
        *end = 0; /* the request line */
    while (which < format_count && !strstr(head, formats[which].path))
        which++;
    if (which == format_count)
        which = USAGE + 1;
    for (int i = 0; i < 4 && !*model; i++) {
        const char *at = strstr(head, kinds[i]);
        if (at || (at = strstr(body, kinds[i])))
            sscanf(at, "%63[a-z0-9-]", model);
    }
    struct format *f = &formats[which];
    board[REQUESTS]++;
    int ticking = sscanf(model, "paced-%ld-%ld", &count, &rate) == 2;
    if ((ticking || sscanf(model, "alone-%ld-%ld", &count, &rate) == 2) && rate > 0) {
        if (put(c, f->head.data, f->head.size) < 0 ||
            put(c, f->delta[0].data, f->delta[0].size) < 0)
            return -1;
        c->format = f;
        c->sent = 1;
        c->total = count;
        c->interval = 1000000000u / (uint64_t)rate;
        /* The golden ratio spreads streams evenly over the interval, however many there are. */
        double phase = (double)begun++ * 0.6180339887498949;
        c->due = now_ns() + (uint64_t)((phase - (double)(uint64_t)phase) * (double)c->interval);
        if (ticking)
            c->due = (c->due / TICK + 1) * TICK;
        schedule(c);
        return 0;
    }
    struct piece *out = &f->whole;
    if (sscanf(model, "burst-%ld", &count) == 1)
        out = cached(model, which, count, 0);
    else if (sscanf(model, "chunks-%ld", &count) == 1)
        out = cached(model, which, count, 1);
    return put(c, out->data, out->size);
}

static int receive(struct client *c)
{
    ssize_t n = read(c->fd, c->in + c->have, LIMIT - 1 - c->have);
    if (n <= 0)
        return n < 0 && errno == EAGAIN ? 0 : -1;
    c->have += (size_t)n;
    c->in[c->have] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end)
        return c->have < LIMIT - 1 ? 0 : -1;
    char *length = strcasestr(c->in, "\r\ncontent-length:");
    size_t size = length && length < end ? (size_t)atol(length + 17) : 0;
    size_t all = (size_t)(end + 4 - c->in) + size;
    if (c->have < all)
        return all < LIMIT ? 0 : -1;
    *end = 0;
    c->have = 0; /* pipelining is not supported */
    return answer(c, c->in, end + 4);
}

static int flush(struct client *c)
{
    ssize_t n = write(c->fd, c->out, c->left);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    c->out += n;
    c->left -= (size_t)n;
    if (!c->left)
        watch(ep, c->fd, EPOLLIN, c, EPOLL_CTL_MOD);
    return 0;
}

static void welcome(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct client *c = malloc(sizeof *c);
        memset(c, 0, offsetof(struct client, in));
        c->fd = fd;
        c->at = -1;
        watch(ep, fd, EPOLLIN, c, EPOLL_CTL_ADD);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    live_and_die_with_parent();
    board = open_board(argv[1]);
    prepare(argv[2]);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), size = 1 << 20;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &size, sizeof size); /* a burst is one write */
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 4096) < 0 || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        die("listen");
    ep = epoll_create1(0);
    watch(ep, listener, EPOLLIN, NULL, EPOLL_CTL_ADD);
    board[READY] = ntohs(address.sin_port);
    for (;;) {
        struct epoll_event found[64];
        uint64_t now = now_ns(), wait = 50000000;
        if (heaped)
            wait = heap[0]->due <= now ? 0 : heap[0]->due - now < wait ? heap[0]->due - now : wait;
        struct timespec timeout = {0, (long)wait};
        struct pollfd any = {ep, POLLIN, 0};
        int count = ppoll(&any, 1, &timeout, NULL) > 0 ? epoll_wait(ep, found, 64, 0) : 0;
        for (int i = 0; i < count; i++) {
            struct client *c = found[i].data.ptr;
            int bad = 0;
            if (!c) {
                welcome(listener);
                continue;
            }
            if (found[i].events & EPOLLOUT)
                bad = flush(c) < 0;
            if (!bad && found[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                bad = receive(c) < 0;
            if (bad)
                drop(c);
        }
        for (now = now_ns(); heaped && heap[0]->due <= now;) {
            struct client *c = heap[0];
            if (step(c) < 0) {
                board[ERRORS]++;
                drop(c);
            }
        }
        while (board[FINISH] && heaped)
            if (finish(heap[0]) < 0)
                continue; /* out of the heap already; its socket reports the close */
    }
}
