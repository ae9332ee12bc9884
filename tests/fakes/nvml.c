/* NVML without a driver, for tests. Needs no NVIDIA header. Compiled with -DOLD it is that of a driver before 510:
 * no function of a third version, no event reasons by their new name, no instantaneous power. One scenario per variable:
 *   FAKE_NVML_INIT         what nvmlInit returns (9 driver not loaded, 18 library and driver of two versions)
 *   FAKE_NVML_DEVICES      how many GPUs there are (1)
 *   FAKE_NVML_REASONS      mask of clock event reasons, or several with commas, one a call (0)
 *   FAKE_NVML_CLOCKS       SM clock in MHz, likewise (1980)
 *   FAKE_NVML_TEMPERATURE  degrees, likewise (45)
 *   FAKE_NVML_POWER        milliwatts at this instant, likewise (300000); the usual reading lags: it is 250000
 *   FAKE_NVML_ENERGY       millijoules, likewise: a counter (1000000)
 *   FAKE_NVML_PROCESSES    "pid:bytes,pid:bytes"; bytes of 0 are not told
 *   FAKE_NVML_LIMITS       enforced power limit of each GPU in milliwatts, with commas (700000)
 *   FAKE_NVML_MIG          MIG is on: sensors of the whole GPU are refused
 *   FAKE_NVML_HIDES        every sensor is refused, as in a container or on a Jetson
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int nvmlReturn_t;
typedef struct device { int index; } device;
enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
enum { MAX_DEVICES = 8, POWER_INSTANT = 186 };

static int initialized;
static device all[MAX_DEVICES];

static long long number(const char *name, long long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtoll(text, NULL, 0) : otherwise;
}
/* The item of a list with commas, its last one for all beyond it. */
static long long item(const char *name, int index, long long otherwise) {
    const char *text = getenv(name);
    if (!text || !*text) return otherwise;
    for (const char *next; index-- > 0 && (next = strchr(text, ',')); ) text = next + 1;
    return strtoll(text, NULL, 0);
}
#define NEXT(name, otherwise) ({ static int calls; item(name, calls++, otherwise); })
#define SENSOR do { if (!initialized) return UNINITIALIZED; if (number("FAKE_NVML_HIDES", 0)) return NOT_SUPPORTED; } while (0)
#define OF_WHOLE_GPU do { SENSOR; if (number("FAKE_NVML_MIG", 0)) return NO_PERMISSION; } while (0)

nvmlReturn_t nvmlInit_v2(void) { int code = (int)number("FAKE_NVML_INIT", 0); initialized = !code; return code; }
nvmlReturn_t nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
nvmlReturn_t nvmlShutdown(void) { initialized = 0; return OK; }
const char *nvmlErrorString(nvmlReturn_t code) { return code == 9 ? "Driver Not Loaded" : code == 18 ? "Driver/library version mismatch" : "an error of the fake"; }
nvmlReturn_t nvmlSystemGetDriverVersion(char *text, unsigned length) { if (!initialized) return UNINITIALIZED; snprintf(text, length, "580.95.05"); return OK; }
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) { if (!initialized) return UNINITIALIZED; *count = (unsigned)number("FAKE_NVML_DEVICES", 1); return OK; }
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, device **made) {
    if (!initialized) return UNINITIALIZED;
    if (index >= (unsigned)number("FAKE_NVML_DEVICES", 1)) return INVALID_ARGUMENT;
    all[index].index = (int)index;
    *made = &all[index];
    return OK;
}
/* The identifiers of the fake CUDA driver: the last byte numbers the GPU. Slices have others, unknown here. */
nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, device **made) {
    if (!initialized) return UNINITIALIZED;
    if (strncmp(uuid, "GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadae", 38)) return NOT_FOUND;
    return nvmlDeviceGetHandleByIndex_v2((unsigned)strtoul(uuid + 38, NULL, 16), made);
}
nvmlReturn_t nvmlDeviceGetName(device *of, char *text, unsigned length) { snprintf(text, length, "Fake GPU %d", of->index); return OK; }

/* Sensors */

static nvmlReturn_t reasons(unsigned long long *mask) { OF_WHOLE_GPU; *mask = (unsigned long long)NEXT("FAKE_NVML_REASONS", 0); return OK; }
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(device *of, unsigned long long *mask) { (void)of; return reasons(mask); }
#ifndef OLD
nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(device *of, unsigned long long *mask) { (void)of; return reasons(mask); }
#endif
nvmlReturn_t nvmlDeviceGetClockInfo(device *of, int kind, unsigned *mhz) { (void)of, (void)kind; SENSOR; *mhz = (unsigned)NEXT("FAKE_NVML_CLOCKS", 1980); return OK; }
nvmlReturn_t nvmlDeviceGetMaxClockInfo(device *of, int kind, unsigned *mhz) { (void)of, (void)kind; SENSOR; *mhz = 1980; return OK; }
nvmlReturn_t nvmlDeviceGetApplicationsClock(device *of, int kind, unsigned *mhz) { (void)of, (void)kind; OF_WHOLE_GPU; *mhz = (unsigned)number("FAKE_NVML_APPLICATION_CLOCK", 1980); return OK; }
nvmlReturn_t nvmlDeviceGetDefaultApplicationsClock(device *of, int kind, unsigned *mhz) { (void)of, (void)kind; OF_WHOLE_GPU; *mhz = 1980; return OK; }
nvmlReturn_t nvmlDeviceGetTemperature(device *of, int kind, unsigned *celsius) { (void)of, (void)kind; SENSOR; *celsius = (unsigned)NEXT("FAKE_NVML_TEMPERATURE", 45); return OK; }
nvmlReturn_t nvmlDeviceGetPowerUsage(device *of, unsigned *milliwatts) { (void)of; OF_WHOLE_GPU; *milliwatts = 250000; return OK; }
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(device *of, unsigned long long *millijoules) { (void)of; OF_WHOLE_GPU; *millijoules = (unsigned long long)NEXT("FAKE_NVML_ENERGY", 1000000); return OK; }
nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(device *of, unsigned *milliwatts) { OF_WHOLE_GPU; *milliwatts = (unsigned)item("FAKE_NVML_LIMITS", of->index, 700000); return OK; }
nvmlReturn_t nvmlDeviceGetEccMode(device *of, unsigned *now, unsigned *pending) { (void)of; SENSOR; *now = *pending = 1; return OK; }
nvmlReturn_t nvmlDeviceGetMigMode(device *of, unsigned *now, unsigned *pending) { (void)of; SENSOR; *now = *pending = (unsigned)number("FAKE_NVML_MIG", 0); return OK; }
typedef struct { unsigned long long total, free, used; } memory;
nvmlReturn_t nvmlDeviceGetMemoryInfo(device *of, memory *got) { (void)of; SENSOR; *got = (memory){1ULL << 30, 3ULL << 28, 1ULL << 28}; return OK; }

typedef struct { unsigned id, scope; long long at, took_us; int kind; nvmlReturn_t code; union { double d; unsigned u; unsigned long long ull; } value; } field;
nvmlReturn_t nvmlDeviceGetFieldValues(device *of, int count, field *fields) {
    (void)of;
    OF_WHOLE_GPU;
    for (int i = 0; i < count; i++) {
#ifdef OLD
        fields[i].code = NOT_SUPPORTED;
#else
        fields[i].code = fields[i].id == POWER_INSTANT ? OK : NOT_SUPPORTED;
        fields[i].kind = 1; /* unsigned int */
        fields[i].value.u = (unsigned)NEXT("FAKE_NVML_POWER", 300000);
#endif
    }
    return OK;
}

/* Processes. The first version's entries are smaller. */

typedef struct { unsigned pid; unsigned long long used; unsigned instance, slice; } process;
static nvmlReturn_t processes(unsigned *count, process *list) {
    SENSOR;
    const char *text = getenv("FAKE_NVML_PROCESSES");
    unsigned there = 0;
    for (const char *each = text; each && *each; each = (each = strchr(each, ',')) ? each + 1 : NULL) there++;
    if (there > *count || (there && !list)) { *count = there; return INSUFFICIENT_SIZE; }
    *count = there;
    for (unsigned i = 0; i < there; i++) {
        char *end;
        list[i] = (process){.pid = (unsigned)strtoul(text, &end, 10), .instance = ~0u, .slice = ~0u};
        list[i].used = strtoull(end + 1, &end, 10);
        if (!list[i].used) list[i].used = ~0ULL;
        text = end + 1;
    }
    return OK;
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(device *of, unsigned *count, process *list) { (void)of; return processes(count, list); }
#ifndef OLD
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(device *of, unsigned *count, process *list) { (void)of; return processes(count, list); }
#endif
