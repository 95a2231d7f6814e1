/* httpload: many HTTP/1.1 clients on one epoll; says what it got as one JSON object.
 *
 * Bodies are dropped inside the kernel (MSG_TRUNC), so that the client is never the bottleneck; with -c they are read
 * and compared byte by byte, with a needle (see -f) searched. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "httpload -a ADDRESS -p PORT (-u TARGET | -f FILE) [options]\n"
    "  -f FILE   a target per line, asked in turn; after a tab, text that the answer must hold\n"
    "  -n N      connections at once (1)      -N N     requests in all (one per connection; 0: until -T)\n"
    "  -T S      stop after S seconds         -k       keep connections for further requests\n"
    "  -r B      read B bytes/s per connection -w S    wait S seconds between a connection's requests\n"
    "  -R B      ask in ranges of B bytes, the file over and over (its size from -c)\n"
    "  -s ADDR/N connect from N addresses, this one and those after it, in turn\n"
    "  -c FILE   the content that is due; it is compared with -v, else only its length\n";

enum state { CLOSED, CONNECTING, HEAD, BODY, RESTING, THINKING };
enum { HEAD_MAX = 4096, BUFFER = 1 << 20, SLOW_RCVBUF = 64 << 10, TICK_MS = 5 };

struct client {
    int fd;
    enum state state;
    char head[HEAD_MAX + 1];
    int head_size;
    long left, offset;   /* of the body: bytes to come, place within the file */
    long range_first;    /* where this connection's next range begins */
    double started, due; /* of the request; when a slow client reads on, or a thinking one asks again */
    const char *needle;
    int keep, asked;
};

static struct { const char *target, *needle; } *targets;
static size_t target_count, next_target;
static struct sockaddr_in server, source = {.sin_family = AF_INET};
static long source_count, next_source;
static int connections = 1, keep_alive, verify, poller;
static long total = -1, range_size, file_size = -1;
static double rate, stop_after, think;
static const unsigned char *reference;
static long started, finished, failed, bad;
static uint64_t bytes;
static float *latencies;
static size_t latency_count, latency_room;
static volatile sig_atomic_t stopped;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void on_signal(int number) { (void)number; stopped = 1; }

static void watch(struct client *c, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, how, c->fd, &event);
}

static int may_start(void) { return !stopped && (total == 0 || started < total); }

static void ask(struct client *c) {
    char request[HEAD_MAX], range[64] = "";
    size_t n = next_target++ % target_count;
    c->needle = targets[n].needle;
    c->offset = 0;
    if (range_size) {
        if (c->range_first >= file_size) c->range_first = 0;
        c->offset = c->range_first;
        c->range_first += range_size;
        snprintf(range, sizeof range, "Range: bytes=%ld-%ld\r\n", c->offset, c->range_first - 1);
    }
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: bench\r\nUser-Agent: httpload\r\n%s%s\r\n",
                        targets[n].target, range, keep_alive ? "" : "Connection: close\r\n");
    c->state = HEAD;
    c->head_size = 0;
    c->left = 0;
    if (keep_alive && c->asked) c->started = now(); /* a fresh connection counts from connect() on */
    c->asked = 1;
    c->due = c->started;
    if (send(c->fd, request, size, MSG_NOSIGNAL) != size) shutdown(c->fd, SHUT_RDWR);
}

static void dial(struct client *c) {
    int one = 1, small = SLOW_RCVBUF;
    started++;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) { perror("socket"); exit(2); }
    if (rate > 0) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (source_count) {
        struct sockaddr_in from = source;
        from.sin_addr.s_addr = htonl(ntohl(source.sin_addr.s_addr) + next_source++ % source_count);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0) { perror("bind"); exit(2); }
    }
    c->state = CONNECTING;
    c->asked = 0;
    c->started = now();
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) {
        perror("connect");
        exit(2);
    }
    watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void again(struct client *c) {
    if (!may_start()) {
        if (c->fd >= 0) close(c->fd);
        c->fd = -1;
        c->state = CLOSED;
    } else if (c->fd < 0) {
        dial(c);
    } else {
        started++;
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
        ask(c);
    }
}

static void end(struct client *c, int good) {
    double t = now();
    if (good) {
        finished++;
        if (latency_count == latency_room)
            latencies = realloc(latencies, (latency_room = latency_room * 2 + 1024) * sizeof *latencies);
        latencies[latency_count++] = t - c->started;
    } else {
        failed++;
    }
    if (!good || !keep_alive || !c->keep) {
        close(c->fd);
        c->fd = -1;
    }
    if (think > 0) {
        c->state = THINKING;
        c->due = t + think;
        if (c->fd >= 0) watch(c, 0, EPOLL_CTL_MOD);
    } else {
        again(c);
    }
}

static void read_head(struct client *c) {
    /* looked at first: what follows the head is body and is read as such */
    int got = recv(c->fd, c->head + c->head_size, HEAD_MAX - c->head_size, MSG_PEEK);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) end(c, 0);
        return;
    }
    int before = c->head_size;
    c->head[before + got] = 0;
    char *blank = strstr(c->head, "\r\n\r\n");
    int size = blank ? (int)(blank + 4 - c->head) : before + got;
    if (recv(c->fd, c->head + before, size - before, 0) != size - before) { end(c, 0); return; }
    c->head_size = size;
    if (!blank) {
        if (size >= HEAD_MAX) end(c, 0);
        return;
    }
    c->head[size] = 0;
    int status = strncmp(c->head, "HTTP/1.", 7) ? 0 : atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->keep = !strcasestr(c->head, "\r\nconnection: close");
    long due = file_size;
    if (range_size && c->offset + range_size > file_size) due = file_size - c->offset;
    else if (range_size) due = range_size;
    if (!length || status != (range_size ? 206 : 200)) { end(c, 0); return; }
    c->left = atol(length + strlen("\r\ncontent-length:"));
    if (due >= 0 && c->left != due) bad++;
    c->state = BODY;
    if (c->left == 0) end(c, 1);
}

static void read_body(struct client *c, double t) {
    static char buffer[BUFFER + 1];
    long want = c->left < BUFFER ? c->left : BUFFER;
    if (rate > 0 && rate * 0.1 < want) want = rate * 0.1;
    int look = verify || c->needle;
    if (c->needle && recv(c->fd, buffer, want, MSG_PEEK) < want) return; /* small answers: wait for the whole */
    long got = recv(c->fd, buffer, want, look ? 0 : MSG_TRUNC);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) end(c, 0);
        return;
    }
    if (verify && (c->offset + got > file_size || memcmp(reference + c->offset, buffer, got))) bad++;
    if (c->needle) {
        buffer[got] = 0;
        if (!strstr(buffer, c->needle)) bad++;
    }
    c->left -= got;
    c->offset += got;
    bytes += got;
    if (c->left == 0) { end(c, 1); return; }
    if (rate > 0) {
        c->due += got / rate;
        if (c->due < t - 1) c->due = t; /* the server was slower than we are: no catching up */
        if (c->due > t) {
            c->state = RESTING;
            watch(c, 0, EPOLL_CTL_MOD);
        }
    }
}

static void happened(struct client *c, uint32_t events, double t) {
    switch (c->state) {
    case CONNECTING:
        if (events & (EPOLLERR | EPOLLHUP)) { end(c, 0); return; }
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
        ask(c);
        return;
    case HEAD: read_head(c); if (c->state == BODY) read_body(c, t); return;
    case BODY: read_body(c, t); return;
    case RESTING: if (events & EPOLLERR) end(c, 0); return;
    case THINKING: close(c->fd); c->fd = -1; return; /* the server ended an idle connection */
    case CLOSED: return;
    }
}

static void wake(struct client *c, double t) {
    if (c->due > t) return;
    if (c->state == RESTING) {
        c->state = BODY;
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
    } else if (c->state == THINKING) {
        again(c);
    }
}

static void add_target(const char *target, const char *needle) {
    targets = realloc(targets, (target_count + 1) * sizeof *targets);
    targets[target_count].target = target;
    targets[target_count++].needle = needle;
}

static void read_targets(const char *name) {
    FILE *file = fopen(name, "r");
    char *line = NULL;
    size_t room = 0;
    if (!file) { perror(name); exit(2); }
    while (getline(&line, &room, file) > 0) {
        line[strcspn(line, "\n")] = 0;
        char *tab = strchr(line, '\t');
        if (tab) *tab = 0;
        add_target(strdup(line), tab ? strdup(tab + 1) : NULL);
    }
    free(line);
    fclose(file);
}

static void read_sources(char *text) {
    char *slash = strchr(text, '/');
    if (slash) *slash = 0;
    source_count = slash ? atol(slash + 1) : 1;
    if (inet_pton(AF_INET, text, &source.sin_addr) != 1 || source_count < 1) { fputs(usage, stderr); exit(2); }
}

static void map_reference(const char *name) {
    struct stat about;
    int fd = open(name, O_RDONLY);
    if (fd < 0 || fstat(fd, &about) < 0) { perror(name); exit(2); }
    file_size = about.st_size;
    reference = mmap(NULL, file_size, PROT_READ, MAP_SHARED, fd, 0);
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static double quantile(double q) { return latency_count ? latencies[(size_t)((latency_count - 1) * q)] * 1e3 : 0; }

int main(int argc, char **argv) {
    const char *address = "127.0.0.1";
    int option, port = 80;
    while ((option = getopt(argc, argv, "a:p:u:f:n:N:T:kr:w:R:s:c:v")) != -1) switch (option) {
        case 'a': address = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'u': add_target(optarg, NULL); break;
        case 'f': read_targets(optarg); break;
        case 'n': connections = atoi(optarg); break;
        case 'N': total = atol(optarg); break;
        case 'T': stop_after = atof(optarg); break;
        case 'k': keep_alive = 1; break;
        case 'r': rate = atof(optarg); break;
        case 'w': think = atof(optarg); break;
        case 'R': range_size = atol(optarg); break;
        case 's': read_sources(optarg); break;
        case 'c': map_reference(optarg); break;
        case 'v': verify = 1; break;
        default: fputs(usage, stderr); return 2;
    }
    if (!target_count || connections < 1 || (total == 0 && stop_after <= 0) || ((range_size || verify) && !reference)) {
        fputs(usage, stderr);
        return 2;
    }
    if (total < 0) total = connections;
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &server.sin_addr);
    signal(SIGTERM, on_signal);
    struct rlimit files = {65536, 65536};
    setrlimit(RLIMIT_NOFILE, &files);
    poller = epoll_create1(0);
    struct client *clients = calloc(connections, sizeof *clients);
    double began = now();
    for (int i = 0; i < connections; i++) {
        clients[i].fd = -1;
        again(&clients[i]);
    }
    int timed = rate > 0 || think > 0;
    while (!stopped) {
        struct epoll_event events[256];
        int alive = 0, count = epoll_wait(poller, events, 256, timed ? TICK_MS : 100);
        double t = now();
        if (stop_after > 0 && t - began >= stop_after) break;
        for (int i = 0; i < count; i++) happened(events[i].data.ptr, events[i].events, t);
        if (timed) for (int i = 0; i < connections; i++) wake(&clients[i], t);
        if (total > 0 && finished + failed >= total) {
            for (int i = 0; i < connections && !alive; i++) alive = clients[i].state != CLOSED;
            if (!alive || finished + failed >= started) break;
        }
    }
    double wall = now() - began;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
    qsort(latencies, latency_count, sizeof *latencies, by_value);
    printf("{\"connections\": %d, \"ok\": %ld, \"failed\": %ld, \"bad\": %ld, \"bytes\": %lu, \"seconds\": %.4f, "
           "\"cpu\": %.3f, \"p50_ms\": %.4f, \"p99_ms\": %.4f}\n",
           connections, finished, failed, bad, (unsigned long)bytes, wall, cpu, quantile(0.5), quantile(0.99));
    return failed || bad ? 1 : 0;
}
