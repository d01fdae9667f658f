// What a shell can't do, from inside a step.
//
//   probe ask SOCKET HEX       sends bytes to a Unix socket (@ for an abstract one), prints the answer
//   probe connect ADDRESS PORT [DEVICE]  connects by TCP, through DEVICE; prints the error, 0 for none
//   probe datagram ADDRESS PORT DEVICE  sends one by UDP, prints whether there is an answer
//   probe frame ADDRESS PORT BYPASS  sends one as a frame of tap0, around its queues with 1
//   probe FILE                 makes the system calls that FILE lists, one process for each
//
// A line is: number of the ABI (0 the machine's own, 1 that of 32-bit programs on x86), number of
// the call, six arguments. For each line there is one of output: the result and the error.

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static long narrow(long *a)
{
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" // the sixth argument, of no call that is probed, is left out
                     : "=a"(result)
                     : "a"(a[0]), "b"(a[1]), "c"(a[2]), "d"(a[3]), "S"(a[4]), "D"(a[5])
                     : "memory", "r8", "r9", "r10", "r11");
    result = (int)result;
    if (result < 0 && result > -4096) {
        errno = -result;
        return -1;
    }
    return result;
#else
    return -1;
#endif
}

static int ask(const char *path, const char *hex)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    unsigned char data[4096];
    int size = 0, end = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (*path == '@')
        *address.sun_path = 0;
    if (connect(end, (void *)&address, offsetof(struct sockaddr_un, sun_path) + strlen(path)))
        return printf("error %d\n", errno), 1;
    for (; sscanf(hex, "%2hhx", data + size) == 1; hex += 2)
        size++;
    if (write(end, data, size) != size)
        return 1;
    shutdown(end, SHUT_WR);
    while ((size = read(end, data, sizeof data)) > 0)
        for (int i = 0; i < size; i++)
            printf("%02x", data[i]);
    puts("");
    return 0;
}

static int datagram(const char *host, int port, const char *device)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 2};
    char answer[8];
    int end = socket(AF_INET, SOCK_DGRAM, 0);
    inet_pton(AF_INET, host, &address.sin_addr);
    setsockopt(end, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (*device && setsockopt(end, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device)))
        return printf("error %d\n", errno), 0;
    if (sendto(end, "x", 1, 0, (void *)&address, sizeof address) != 1)
        return printf("error %d\n", errno), 0;
    puts(recv(end, answer, sizeof answer, 0) > 0 ? "answered" : "silence");
    return 0;
}

static int frame(const char *host, int port, int bypass)
{
    unsigned char packet[] = {
        0x52, 0x55, 10, 0, 2, 2, 2, 0, 10, 0, 2, 0x64, 8, 0,                 // Ethernet
        0x45, 0, 0, 29, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 2, 100, 0, 0, 0, 0, // IPv4
        0x11, 0x5c, port >> 8, port, 0, 9, 0, 0, 'x',                        // UDP
    };
    unsigned sum = 0;
    struct sockaddr_ll device = {
        .sll_family = AF_PACKET, .sll_protocol = htons(0x800), .sll_ifindex = if_nametoindex("tap0")};
    int end = socket(AF_PACKET, SOCK_RAW, 0);
    if (end < 0 || bind(end, (void *)&device, sizeof device))
        return printf("error %d\n", errno), 0;
    setsockopt(end, SOL_PACKET, PACKET_QDISC_BYPASS, &bypass, sizeof bypass);
    inet_pton(AF_INET, host, packet + 30);
    for (int i = 14; i < 34; i += 2)
        sum += packet[i] << 8 | packet[i + 1];
    sum = (sum >> 16) + (sum & 0xffff);
    sum = ~(sum + (sum >> 16));
    packet[24] = sum >> 8, packet[25] = sum;
    printf("%s\n", write(end, packet, sizeof packet) > 0 ? "sent" : "refused");
    return 0;
}

static int reach(const char *host, int port, const char *device)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *four = (void *)&address;
    struct sockaddr_in6 *six = (void *)&address;
    int wide = strchr(host, ':') != NULL;
    int end = socket(wide ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int error = 0;
    socklen_t size = sizeof error;
    address.ss_family = wide ? AF_INET6 : AF_INET;
    if (wide)
        inet_pton(AF_INET6, host, &six->sin6_addr), six->sin6_port = htons(port);
    else
        inet_pton(AF_INET, host, &four->sin_addr), four->sin_port = htons(port);
    if (device && setsockopt(end, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device)))
        error = errno;
    else if (connect(end, (void *)&address, wide ? sizeof *six : sizeof *four) == 0)
        error = 0;
    else if (errno != EINPROGRESS)
        error = errno;
    else if (poll(&(struct pollfd){end, POLLOUT, 0}, 1, 3000) != 1)
        error = ETIMEDOUT;
    else
        getsockopt(end, SOL_SOCKET, SO_ERROR, &error, &size);
    printf("%d\n", error);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 3 && !strcmp(argv[1], "ask"))
        return ask(argv[2], argv[3]);
    if (argc > 3 && !strcmp(argv[1], "connect"))
        return reach(argv[2], atoi(argv[3]), argc > 4 ? argv[4] : NULL);
    if (argc > 4 && !strcmp(argv[1], "datagram"))
        return datagram(argv[2], atoi(argv[3]), argv[4]);
    if (argc > 4 && !strcmp(argv[1], "frame"))
        return frame(argv[2], atoi(argv[3]), atoi(argv[4]));
    FILE *file = fopen(argc > 1 ? argv[1] : "/calls", "re");
    long abi, a[7];
    if (!file)
        return 2;
    while (fscanf(file, "%ld %ld %ld %ld %ld %ld %ld %ld", &abi, a, a + 1, a + 2, a + 3, a + 4,
                  a + 5, a + 6) == 8) {
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(5);
            errno = 0;
            long result = abi == 1 ? narrow(a) : syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
            int error = errno;
            char line[64];
            int size = snprintf(line, sizeof line, "%ld %d\n", result, error);
            if (write(1, line, size) != size)
                _exit(1);
            _exit(0);
        }
        int status;
        waitpid(pid, &status, 0);
        if (!WIFEXITED(status))
            printf("killed %d\n", WTERMSIG(status));
    }
    return 0;
}
