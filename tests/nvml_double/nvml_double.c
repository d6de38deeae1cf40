/* A double of NVIDIA's libnvidia-ml.so.1, for tests on machines without a GPU.
 *
 *   gcc -shared -fPIC -pthread -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml_double.c
 *
 * The file named by NVML_DOUBLE_STATE is looked at in every call, so a test changes the machine by renaming a new file
 * over it. One line each; a line of any other form makes every call return 999 (unknown error), so that a typo shows:
 *
 *   gpu UUID MEMORY_TOTAL MEMORY_USED NAME...           in order of index; memory in bytes
 *   mig PARENT UUID MEMORY_TOTAL MEMORY_USED NAME...    an instance of the GPU with this index; its own number is
 *                                                       100 * (PARENT + 1) + its place among that GPU's instances
 *   has WHAT VALUE                                      of the device in the line above: utilization (%), temperature
 *                                                       (C), power (mW), numa (node), mig and persistence (mode 0 or 1),
 *                                                       link (the index of a GPU linked by NVLink). Without: not
 *                                                       supported
 *   process NUMBER KIND PID MEMORY                      on the device of this index or number; KIND is compute, graphics
 *                                                       or both; its memory is used in addition; -1 is "not available"
 *   fail FUNCTION CODE [NUMBER]                         this function returns this nvmlReturn_t; for one device only
 *   hang FUNCTION [NUMBER]                              this function does not return while the line is there
 *   alone                                               two calls at the same time abort the process
 *
 * The folder named by NVML_DOUBLE_PROCESSES, if there is one, holds files with `process` lines of programs that play
 * users of a GPU. Such a line counts only while the process lives: memory vanishes with it, as in the driver.
 *
 * Without the state file nvmlInit* returns 9 (driver not loaded), as the real library does without the kernel module.
 *
 * Limits, or what a test with it can't show: a real driver's timing (init takes up to seconds, a lost GPU answers late)
 * and that a call which hangs there can't be killed; what the real library keeps between init and shutdown (this one
 * keeps nothing); utilisation by process; processes on the parent of MIG instances; MPS; accounting; that memory can't be
 * more than there is (more used than total counts as nothing free); permissions; and whether the functions and structs
 * are NVIDIA's: they follow pynvml, which is what is tested against them. At most 64 devices, 64 processes each.
 */

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 6, INSUFFICIENT_SIZE, DRIVER_NOT_LOADED = 9,
       VERSION_MISMATCH = 25, UNKNOWN = 999 };
enum { NOBODY = -1, MOST = 64, SLICES = 7 };

typedef int nvmlReturn_t;
typedef void *nvmlDevice_t; /* the device's number + 1, so that NULL stays invalid */
typedef unsigned long long bytes;
typedef struct { bytes total, free, used; } nvmlMemory_t;
typedef struct { unsigned version; bytes total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct { unsigned gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned version, sensor; int temperature; } nvmlTemperature_t;
typedef struct { unsigned pid; bytes memory; unsigned gpu_instance, compute_instance; } nvmlProcessInfo_t;

enum kind { COMPUTE = 1, GRAPHICS = 2, BOTH = 3 };
struct process { unsigned pid; long long memory; enum kind kind; };
struct device {
    char uuid[96], name[96];
    bytes total, used;
    long number;
    int parent, utilization, temperature, power, numa, mig, persistence, processes;
    unsigned long long links;
    struct process process[MOST];
};
struct rule { char function[96]; int code; long number; int hangs; };
struct machine { int known, devices, rules, gpus, alone; struct device device[MOST]; struct rule rule[MOST]; };

static atomic_int initialised; /* NVML counts initialisations */
static atomic_int inside;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct machine machine; /* as the state file says, read again when another one is there */
static struct stat read_from;

static struct device *find(long number) {
    for (int i = 0; i < machine.devices; i++)
        if (machine.device[i].number == number) return &machine.device[i];
    return NULL;
}

static int add_device(const struct device *from, int parent) {
    if (machine.devices == MOST) return 0;
    struct device *device = &machine.device[machine.devices++];
    *device = *from;
    device->parent = parent;
    device->number = parent == NOBODY ? machine.gpus++ : 100 * (parent + 1);
    for (int i = 0; parent != NOBODY && i < machine.devices - 1; i++) device->number += machine.device[i].parent == parent;
    device->utilization = device->temperature = device->power = device->numa = device->mig = NOBODY;
    device->persistence = NOBODY;
    device->processes = 0;
    device->links = 0;
    return 1;
}

static int set_field(const char *what, int value) {
    struct device *device = machine.devices ? &machine.device[machine.devices - 1] : NULL;
    if (!device) return 0;
    if (!strcmp(what, "utilization")) device->utilization = value;
    else if (!strcmp(what, "temperature")) device->temperature = value;
    else if (!strcmp(what, "power")) device->power = value;
    else if (!strcmp(what, "numa")) device->numa = value;
    else if (!strcmp(what, "mig")) device->mig = value;
    else if (!strcmp(what, "persistence")) device->persistence = value;
    else if (!strcmp(what, "link") && value >= 0 && value < MOST) device->links |= 1ull << value;
    else return 0;
    return 1;
}

static int parse_process(const char *line, long *number, struct process *process) {
    char kind[16];
    if (sscanf(line, "process %ld %15s %u %lld", number, kind, &process->pid, &process->memory) != 4) return 0;
    process->kind = !strcmp(kind, "compute") ? COMPUTE : !strcmp(kind, "graphics") ? GRAPHICS : BOTH;
    return process->kind != BOTH || !strcmp(kind, "both");
}

static int add_process(struct device *device, const struct process *process) {
    if (!device || device->processes == MOST) return 0;
    device->process[device->processes++] = *process;
    if (process->memory > 0) device->used += (bytes)process->memory;
    return 1;
}

static int understand(const char *line) {
    struct device device;
    struct process process;
    struct rule rule = {.number = NOBODY};
    char what[32];
    int parent, value;
    long number;
    switch (line[0]) {
    case 'g':
        return sscanf(line, "gpu %95s %llu %llu %95[^\n]", device.uuid, &device.total, &device.used, device.name) == 4
            && add_device(&device, NOBODY);
    case 'm':
        return sscanf(line, "mig %d %95s %llu %llu %95[^\n]", &parent, device.uuid, &device.total, &device.used,
                      device.name) == 5 && parent >= 0 && add_device(&device, parent);
    case 'h':
        if (sscanf(line, "has %31s %d", what, &value) == 2) return set_field(what, value);
        rule.hangs = sscanf(line, "hang %95s %ld", rule.function, &rule.number) >= 1;
        if (!rule.hangs || machine.rules == MOST) return 0;
        machine.rule[machine.rules++] = rule;
        return 1;
    case 'p':
        return parse_process(line, &number, &process) && add_process(find(number), &process);
    case 'f':
        if (sscanf(line, "fail %95s %d %ld", rule.function, &rule.code, &rule.number) < 2) return 0;
        if (machine.rules == MOST) return 0;
        machine.rule[machine.rules++] = rule;
        return 1;
    case 'a':
        return machine.alone = !strcmp(line, "alone\n");
    }
    return 0;
}

/* Reads the state file, if it is another one than before. */
static nvmlReturn_t refresh(void) {
    const char *path = getenv("NVML_DOUBLE_STATE");
    struct stat now;
    char line[512];
    if (!path || stat(path, &now)) return machine.known = 0, DRIVER_NOT_LOADED;
    if (machine.known && now.st_ino == read_from.st_ino && now.st_size == read_from.st_size
        && now.st_mtim.tv_sec == read_from.st_mtim.tv_sec && now.st_mtim.tv_nsec == read_from.st_mtim.tv_nsec)
        return machine.known > 0 ? SUCCESS : UNKNOWN;
    FILE *file = fopen(path, "re");
    if (!file) return machine.known = 0, DRIVER_NOT_LOADED;
    memset(&machine, 0, sizeof machine);
    machine.known = 1;
    fstat(fileno(file), &read_from);
    while (fgets(line, sizeof line, file))
        if (!understand(line)) machine.known = -1;
    fclose(file);
    return machine.known > 0 ? SUCCESS : UNKNOWN;
}

/* Adds what the files of programs that live say of this device. */
static void add_living(struct device *device) {
    const char *folder = getenv("NVML_DOUBLE_PROCESSES");
    DIR *files = folder ? opendir(folder) : NULL;
    struct dirent *entry;
    while (files && (entry = readdir(files))) {
        char path[PATH_MAX], line[256];
        FILE *file;
        if (entry->d_name[0] == '.' || snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path)
            continue;
        if (!(file = fopen(path, "re"))) continue;
        while (fgets(line, sizeof line, file)) {
            struct process process;
            long number;
            if (parse_process(line, &number, &process) && number == device->number
                && (!kill((pid_t)process.pid, 0) || errno == EPERM))
                add_process(device, &process);
        }
        fclose(file);
    }
    if (files) closedir(files);
}

static const struct rule *rule_for(const char *function, long number, int hangs) {
    for (int i = 0; i < machine.rules; i++) {
        const struct rule *rule = &machine.rule[i];
        if (rule->hangs == hangs && !strcmp(rule->function, function)
            && (rule->number == NOBODY || rule->number == number))
            return rule;
    }
    return NULL;
}

/* One call: how many GPUs there are, and the device with this number, unless a rule speaks first. */
static nvmlReturn_t look(const char *function, long number, unsigned *count, struct device *wanted) {
    nvmlReturn_t result;
    int others = inside++;
    for (;;) {
        pthread_mutex_lock(&lock);
        result = refresh();
        if (machine.alone && others) fprintf(stderr, "the double of NVML: two calls at once (%s)\n", function), abort();
        const struct rule *rule = rule_for(function, number, 0);
        int hangs = result == SUCCESS && rule_for(function, number, 1);
        if (result == SUCCESS && rule) result = rule->code;
        const struct device *found = find(number);
        if (result == SUCCESS && number != NOBODY && !found) result = INVALID_ARGUMENT;
        if (result == SUCCESS && found && wanted) *wanted = *found;
        if (count) *count = (unsigned)machine.gpus;
        pthread_mutex_unlock(&lock);
        if (!hangs) break;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); /* until the test lets it go */
    }
    inside--;
    return result;
}

static nvmlDevice_t handle_of(long number) { return (nvmlDevice_t)(intptr_t)(number + 1); }

static long number_of(nvmlDevice_t device) { return (long)(intptr_t)device - 1; }

static nvmlReturn_t ask(const char *function, long number, unsigned *count, struct device *wanted) {
    return initialised > 0 ? look(function, number, count, wanted) : UNINITIALIZED;
}

/* The device, with what lives on it. */
static nvmlReturn_t ask_living(const char *function, nvmlDevice_t device, struct device *wanted) {
    nvmlReturn_t result = ask(function, number_of(device), NULL, wanted);
    if (result == SUCCESS) add_living(wanted);
    return result;
}

static nvmlReturn_t put(char *to, unsigned size, const char *text) {
    return snprintf(to, size, "%s", text) < (int)size ? SUCCESS : INSUFFICIENT_SIZE;
}

static nvmlReturn_t init(const char *function) {
    nvmlReturn_t result = look(function, NOBODY, NULL, NULL);
    if (result == SUCCESS) initialised++;
    return result;
}

nvmlReturn_t nvmlInit_v2(void) { return init("nvmlInit_v2"); }

nvmlReturn_t nvmlInitWithFlags(unsigned flags) { (void)flags; return init("nvmlInitWithFlags"); }

nvmlReturn_t nvmlShutdown(void) {
    nvmlReturn_t result = ask("nvmlShutdown", NOBODY, NULL, NULL);
    if (result == SUCCESS) initialised--;
    return result;
}

const char *nvmlErrorString(nvmlReturn_t result) { return result == SUCCESS ? "Success" : "An error of the double"; }

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned size) {
    nvmlReturn_t result = ask("nvmlSystemGetDriverVersion", NOBODY, NULL, NULL);
    return result == SUCCESS ? put(version, size, "0.0-double") : result;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) { return ask("nvmlDeviceGetCount_v2", NOBODY, count, NULL); }

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    *device = handle_of((long)index);
    return ask("nvmlDeviceGetHandleByIndex_v2", (long)index, NULL, NULL);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned size) {
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetUUID", number_of(device), NULL, &found);
    return result == SUCCESS ? put(uuid, size, found.uuid) : result;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned size) {
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetName", number_of(device), NULL, &found);
    return result == SUCCESS ? put(name, size, found.name) : result;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    struct device found;
    nvmlReturn_t result = ask_living("nvmlDeviceGetMemoryInfo", device, &found);
    if (result == SUCCESS)
        *memory = (nvmlMemory_t){found.total, found.used < found.total ? found.total - found.used : 0, found.used};
    return result;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory) {
    struct device found;
    nvmlReturn_t result = ask_living("nvmlDeviceGetMemoryInfo_v2", device, &found);
    if (result != SUCCESS) return result;
    if (memory->version != (sizeof *memory | 2u << 24)) return VERSION_MISMATCH;
    memory->total = found.total;
    memory->reserved = 0;
    memory->free = found.used < found.total ? found.total - found.used : 0;
    memory->used = found.used;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetUtilizationRates", number_of(device), NULL, &found);
    if (result != SUCCESS) return result;
    if (found.utilization == NOBODY) return NOT_SUPPORTED;
    *rates = (nvmlUtilization_t){(unsigned)found.utilization, 0};
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *degrees) {
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetTemperature", number_of(device), NULL, &found);
    if (result != SUCCESS) return result;
    if (sensor) return INVALID_ARGUMENT;
    if (found.temperature == NOBODY) return NOT_SUPPORTED;
    *degrees = (unsigned)found.temperature;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *answer) {
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetTemperatureV", number_of(device), NULL, &found);
    if (result != SUCCESS) return result;
    if (answer->version != (sizeof *answer | 1u << 24)) return VERSION_MISMATCH;
    if (found.temperature == NOBODY) return NOT_SUPPORTED;
    answer->temperature = found.temperature;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) {
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetPowerUsage", number_of(device), NULL, &found);
    if (result != SUCCESS) return result;
    if (found.power == NOBODY) return NOT_SUPPORTED;
    *milliwatts = (unsigned)found.power;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned *mode) {
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetPersistenceMode", number_of(device), NULL, &found);
    if (result != SUCCESS) return result;
    if (found.persistence == NOBODY) return NOT_SUPPORTED;
    *mode = (unsigned)found.persistence;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned size, unsigned long *nodes, unsigned scope) {
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetMemoryAffinity", number_of(device), NULL, &found);
    (void)scope;
    if (result != SUCCESS) return result;
    if (found.numa == NOBODY) return NOT_SUPPORTED;
    memset(nodes, 0, size * sizeof *nodes);
    if ((unsigned)found.numa / 64 >= size) return INSUFFICIENT_SIZE;
    nodes[found.numa / 64] = 1ul << found.numa % 64;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t device, nvmlDevice_t other, unsigned what, unsigned *status) {
    enum { READ, WRITE, NVLINK };
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetP2PStatus", number_of(device), NULL, &found);
    if (result != SUCCESS) return result;
    if (number_of(other) < 0 || number_of(other) >= MOST) return INVALID_ARGUMENT;
    *status = what == NVLINK && found.links >> number_of(other) & 1 ? 0 : 5; /* ok, not supported */
    return SUCCESS;
}

static nvmlReturn_t list(const char *function, enum kind kind, nvmlDevice_t device, unsigned *count,
                         nvmlProcessInfo_t *infos) {
    struct device found;
    nvmlReturn_t result = ask_living(function, device, &found);
    unsigned room = *count, seen = 0;
    if (result != SUCCESS) return result;
    for (int i = 0; i < found.processes; i++) {
        const struct process *process = &found.process[i];
        if (!(process->kind & kind)) continue;
        if (infos && seen < room)
            infos[seen] = (nvmlProcessInfo_t){process->pid, (bytes)process->memory, UINT_MAX, UINT_MAX};
        seen++;
    }
    *count = seen;
    return seen > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define LIST(function, kind)                                                                            \
    nvmlReturn_t function(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *infos) {             \
        return list(#function, kind, device, count, infos);                                             \
    }
LIST(nvmlDeviceGetComputeRunningProcesses_v2, COMPUTE)
LIST(nvmlDeviceGetComputeRunningProcesses_v3, COMPUTE)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, GRAPHICS)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, GRAPHICS)

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *now, unsigned *pending) {
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetMigMode", number_of(device), NULL, &found);
    if (result != SUCCESS) return result;
    if (found.mig == NOBODY) return NOT_SUPPORTED;
    *now = *pending = (unsigned)found.mig;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *count) {
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetMaxMigDeviceCount", number_of(device), NULL, &found);
    if (result == SUCCESS) *count = found.mig == NOBODY ? 0 : SLICES;
    return result;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index, nvmlDevice_t *instance) {
    struct device found;
    nvmlReturn_t result = ask("nvmlDeviceGetMigDeviceHandleByIndex", number_of(device), NULL, &found);
    if (result != SUCCESS) return result;
    if (found.mig != 1 || index >= SLICES) return found.mig == 1 ? INVALID_ARGUMENT : NOT_SUPPORTED;
    long number = 100 * (found.number + 1) + (long)index;
    *instance = handle_of(number);
    return look("", number, NULL, NULL) == SUCCESS ? SUCCESS : NOT_FOUND;
}
