/* The task that every system runs: PROGRAM RECORD SECONDS

   It notes the monotonic clock as its first instruction, sleeps, notes it again, and writes both times in seconds as
   one line to RECORD, which is opened before it sleeps. Its exit follows at once. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **words) {
    struct timespec start, end, pause;
    clock_gettime(CLOCK_MONOTONIC, &start);
    if (count != 3)
        return 2;
    int record = open(words[1], O_WRONLY | O_APPEND | O_CLOEXEC);
    if (record < 0)
        return 3;
    double seconds = strtod(words[2], NULL);
    pause.tv_sec = (time_t)seconds;
    pause.tv_nsec = (long)((seconds - (double)pause.tv_sec) * 1e9);
    while (seconds > 0 && nanosleep(&pause, &pause))
        ;
    char line[80];
    clock_gettime(CLOCK_MONOTONIC, &end);
    int length = snprintf(line, sizeof line, "%lld.%09ld %lld.%09ld\n", (long long)start.tv_sec, start.tv_nsec,
                          (long long)end.tv_sec, end.tv_nsec);
    return write(record, line, (size_t)length) == length ? 0 : 4;
}
