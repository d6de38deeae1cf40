/* A double of NVIDIA's libnvidia-ml.so.1, for tests on machines without a GPU.
 *
 *   gcc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml_double.c
 *
 * The file named by NVML_DOUBLE_STATE is read at every call, so a test changes the machine by renaming a new file over
 * it. One line each; a line of any other form makes every call return 999 (unknown error), so that a typo shows:
 *
 *   gpu UUID MEMORY_TOTAL MEMORY_USED NAME...     in order of index; memory in bytes
 *   fail FUNCTION CODE [INDEX]                    this function returns this nvmlReturn_t; with INDEX for that GPU only
 *
 * Without the file nvmlInit* returns 9 (driver not loaded), as the real library does without the kernel module.
 *
 * Limits, or what a test with it can't show: a real driver's timing (init takes up to seconds), calls that hang, what
 * the real library keeps between init and shutdown (this one keeps nothing), MIG, processes, utilisation, and whether
 * the functions and the struct are NVIDIA's: they follow pynvml, which is what is tested against them.
 */

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, UNKNOWN = 999 };
enum { NO_INDEX = -1 };

typedef int nvmlReturn_t;
typedef void *nvmlDevice_t; /* the GPU's index + 1, so that NULL stays invalid */
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
struct gpu { char uuid[96], name[96]; unsigned long long total, used; };

static atomic_int initialised; /* NVML counts initialisations */

/* Reads the state for one call: how many GPUs there are, and the one at `index`, unless a `fail` line speaks first. */
static nvmlReturn_t look(const char *function, long index, unsigned *count, struct gpu *wanted) {
    const char *path = getenv("NVML_DOUBLE_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    nvmlReturn_t result = SUCCESS;
    unsigned seen = 0;
    char line[512];
    if (!file) return DRIVER_NOT_LOADED;
    while (fgets(line, sizeof line, file)) {
        struct gpu gpu;
        char name[96];
        int code;
        long at = NO_INDEX;
        if (sscanf(line, "gpu %95s %llu %llu %95[^\n]", gpu.uuid, &gpu.total, &gpu.used, gpu.name) == 4) {
            if (wanted && index == (long)seen) *wanted = gpu;
            seen++;
        } else if (sscanf(line, "fail %95s %d %ld", name, &code, &at) >= 2) {
            if (result == SUCCESS && !strcmp(name, function) && (at == NO_INDEX || at == index)) result = code;
        } else {
            result = UNKNOWN;
            break;
        }
    }
    fclose(file);
    if (count) *count = seen;
    if (result == SUCCESS && index != NO_INDEX && (index < 0 || index >= (long)seen)) result = INVALID_ARGUMENT;
    return result;
}

static nvmlReturn_t ask(const char *function, long index, unsigned *count, struct gpu *wanted) {
    return initialised > 0 ? look(function, index, count, wanted) : UNINITIALIZED;
}

static long index_of(nvmlDevice_t device) { return (long)(intptr_t)device - 1; }

static nvmlReturn_t put(char *to, unsigned size, const char *text) {
    return snprintf(to, size, "%s", text) < (int)size ? SUCCESS : INSUFFICIENT_SIZE;
}

static nvmlReturn_t init(const char *function) {
    nvmlReturn_t result = look(function, NO_INDEX, NULL, NULL);
    if (result == SUCCESS) initialised++;
    return result;
}

nvmlReturn_t nvmlInit_v2(void) { return init("nvmlInit_v2"); }

nvmlReturn_t nvmlInitWithFlags(unsigned flags) { (void)flags; return init("nvmlInitWithFlags"); }

nvmlReturn_t nvmlShutdown(void) {
    nvmlReturn_t result = ask("nvmlShutdown", NO_INDEX, NULL, NULL);
    if (result == SUCCESS) initialised--;
    return result;
}

const char *nvmlErrorString(nvmlReturn_t result) { return result == SUCCESS ? "Success" : "An error of the double"; }

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned size) {
    nvmlReturn_t result = ask("nvmlSystemGetDriverVersion", NO_INDEX, NULL, NULL);
    return result == SUCCESS ? put(version, size, "0.0-double") : result;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) { return ask("nvmlDeviceGetCount_v2", NO_INDEX, count, NULL); }

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    *device = (nvmlDevice_t)(intptr_t)((long)index + 1);
    return ask("nvmlDeviceGetHandleByIndex_v2", (long)index, NULL, NULL);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned size) {
    struct gpu gpu;
    nvmlReturn_t result = ask("nvmlDeviceGetUUID", index_of(device), NULL, &gpu);
    return result == SUCCESS ? put(uuid, size, gpu.uuid) : result;
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned size) {
    struct gpu gpu;
    nvmlReturn_t result = ask("nvmlDeviceGetName", index_of(device), NULL, &gpu);
    return result == SUCCESS ? put(name, size, gpu.name) : result;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    struct gpu gpu;
    nvmlReturn_t result = ask("nvmlDeviceGetMemoryInfo", index_of(device), NULL, &gpu);
    if (result == SUCCESS) *memory = (nvmlMemory_t){gpu.total, gpu.total - gpu.used, gpu.used};
    return result;
}
