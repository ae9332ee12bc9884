/* A CUDA driver without a GPU, for tests: "device" memory is the host's, work is done when it is enqueued, and each
 * stream has a clock of its own that only work moves. Needs no CUDA header. One scenario per variable:
 *   FAKE_CUDA_INIT        what cuInit returns (802 fabric, 803 versions, 999 unknown, 100 no device)
 *   FAKE_CUDA_DEVICES     how many there are (1)
 *   FAKE_CUDA_CAPABILITY  ten times the compute capability of all (90)
 *   FAKE_CUDA_MEMORY      bytes of each (1 GiB): beyond them an allocation fails
 *   FAKE_CUDA_MIG         the second version of the identifier names a slice
 *   FAKE_CUDA_KERNEL_NS   how long any kernel takes (10000); a copy or memset takes 1 us, and 1 ns more for a KiB
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
       NOT_FOUND = 500, NOT_READY = 600, CAPTURE_UNSUPPORTED = 900 };
enum { MAX_DEVICES = 8, MAX_DEPTH = 64 };

typedef struct op { struct op *next; int kind; CUdeviceptr to, from; size_t count; int value; void (*function)(void *); void *data; } op;
typedef struct graph { op *first, **last; } graph;
typedef struct stream { double now_ms; graph *capturing; } stream;
typedef struct event { double at_ms; int recorded; } event;
typedef struct context { int device, retained; } context;

static int initialized;
static int64_t live; /* streams, events, graphs and allocations that nobody freed */
static size_t used[MAX_DEVICES];
static context primary[MAX_DEVICES];
static __thread context *stack[MAX_DEPTH];
static __thread int depth;
static stream usual;

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 0) : otherwise;
}
static int devices(void) { return (int)number("FAKE_CUDA_DEVICES", 1); }
static context *current(void) { return depth ? stack[depth - 1] : NULL; }
#define NEEDS_CONTEXT do { if (!initialized) return NOT_INITIALIZED; if (!current()) return INVALID_CONTEXT; } while (0)
#define NEEDS_DEVICE(d) do { if (!initialized) return NOT_INITIALIZED; if ((d) < 0 || (d) >= devices()) return INVALID_DEVICE; } while (0)

int64_t fake_live(void) { return live; }
int fake_retained(int device) { return primary[device].retained; }
int fake_current_device(void) { return current() ? current()->device : -1; }

CUresult cuInit(unsigned flags) {
    int code = (int)number("FAKE_CUDA_INIT", 0);
    initialized = code == 0 && flags == 0;
    return flags ? INVALID_VALUE : code;
}
CUresult cuDriverGetVersion(int *version) { *version = (int)number("FAKE_CUDA_VERSION", 13000); return OK; }
CUresult cuGetErrorName(CUresult code, const char **text) { *text = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : code ? "CUDA_ERROR_OF_THE_FAKE" : "CUDA_SUCCESS"; return OK; }
CUresult cuGetErrorString(CUresult code, const char **text) { *text = code == OUT_OF_MEMORY ? "out of memory" : code ? "an error of the fake driver" : "no error"; return OK; }

/* Devices */

CUresult cuDeviceGetCount(int *count) { if (!initialized) return NOT_INITIALIZED; *count = devices(); return OK; }
CUresult cuDeviceGet(CUdevice *device, int index) { NEEDS_DEVICE(index); *device = index; return OK; }
CUresult cuDeviceGetName(char *name, int length, CUdevice device) { NEEDS_DEVICE(device); snprintf(name, length, "Fake GPU %d", device); return OK; }
static void identify(unsigned char *bytes, int device, int slice) {
    for (int i = 0; i < 16; i++) bytes[i] = (unsigned char)(0xa0 + i);
    bytes[15] = (unsigned char)device;
    bytes[0] = slice ? 0xff : 0xa0;
}
CUresult cuDeviceGetUuid(unsigned char *bytes, CUdevice device) { NEEDS_DEVICE(device); identify(bytes, device, 0); return OK; }
CUresult cuDeviceGetUuid_v2(unsigned char *bytes, CUdevice device) { NEEDS_DEVICE(device); identify(bytes, device, (int)number("FAKE_CUDA_MIG", 0)); return OK; }
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) { NEEDS_DEVICE(device); *bytes = (size_t)number("FAKE_CUDA_MEMORY", 1L << 30); return OK; }
CUresult cuDeviceGetPCIBusId(char *text, int length, CUdevice device) { NEEDS_DEVICE(device); snprintf(text, length, "0000:%02x:00.0", device + 1); return OK; }
CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    NEEDS_DEVICE(device);
    int capability = (int)number("FAKE_CUDA_CAPABILITY", 90);
    switch (attribute) {
    case 75: *value = capability / 10; break;
    case 76: *value = capability % 10; break;
    case 16: *value = 132; break;      /* multiprocessors */
    case 38: *value = 50 << 20; break; /* L2 cache */
    case 13: *value = 1980000; break;  /* clock, kHz */
    default: *value = 1;
    }
    return OK;
}

/* Contexts */

CUresult cuDevicePrimaryCtxRetain(context **made, CUdevice device) { NEEDS_DEVICE(device); primary[device].device = device; primary[device].retained++; *made = &primary[device]; return OK; }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { NEEDS_DEVICE(device); if (primary[device].retained < 1) return INVALID_CONTEXT; primary[device].retained--; return OK; }
CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) { NEEDS_DEVICE(device); *flags = 0; *active = primary[device].retained > 0; return OK; }
CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) { NEEDS_DEVICE(device); (void)flags; return OK; }
CUresult cuCtxPushCurrent_v2(context *pushed) { if (!pushed || depth == MAX_DEPTH) return INVALID_CONTEXT; stack[depth++] = pushed; return OK; }
CUresult cuCtxPopCurrent_v2(context **popped) { if (!depth) return INVALID_CONTEXT; depth--; if (popped) *popped = stack[depth]; return OK; }
CUresult cuCtxDetach(context *left) { if (!left || !left->retained) return INVALID_CONTEXT; left->retained--; return OK; } /* by pycuda, at its end */
CUresult cuCtxGetCurrent(context **got) { *got = current(); return OK; }
CUresult cuCtxSetCurrent(context *set) { if (depth) depth--; if (set) stack[depth++] = set; return OK; }
CUresult cuCtxGetDevice(CUdevice *device) { NEEDS_CONTEXT; *device = current()->device; return OK; }
CUresult cuCtxSynchronize(void) { NEEDS_CONTEXT; return OK; }
CUresult cuCtxGetApiVersion(context *of, unsigned *version) { (void)of; *version = 3020; return OK; }
CUresult cuMemGetInfo_v2(size_t *left, size_t *total) { NEEDS_CONTEXT; *total = (size_t)number("FAKE_CUDA_MEMORY", 1L << 30); *left = *total - used[current()->device]; return OK; }

/* Memory: 16 bytes ahead of each block hold its size and device */

CUresult cuMemAlloc_v2(CUdeviceptr *made, size_t count) {
    NEEDS_CONTEXT;
    int device = current()->device;
    if (!count) return INVALID_VALUE;
    if (used[device] + count > (size_t)number("FAKE_CUDA_MEMORY", 1L << 30)) return OUT_OF_MEMORY;
    size_t *block = malloc(count + 16);
    block[0] = count, block[1] = (size_t)device;
    used[device] += count, live++;
    *made = (CUdeviceptr)(uintptr_t)(block + 2);
    return OK;
}
CUresult cuMemFree_v2(CUdeviceptr address) {
    if (!address) return OK;
    size_t *block = (size_t *)(uintptr_t)address - 2;
    used[block[1]] -= block[0], live--;
    free(block);
    return OK;
}
#define HOST(address) ((void *)(uintptr_t)(address))
CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t count) { NEEDS_CONTEXT; memcpy(HOST(to), from, count); return OK; }
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t count) { NEEDS_CONTEXT; memcpy(to, HOST(from), count); return OK; }
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t count) { NEEDS_CONTEXT; memcpy(HOST(to), HOST(from), count); return OK; }
CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) { NEEDS_CONTEXT; memset(HOST(to), value, count); return OK; }

/* Work: done at once on a stream, or recorded by one that captures */

enum { COPY, FILL, KERNEL, CALL };
static void work(stream *on, const op *done) {
    if (done->kind == COPY) memcpy(HOST(done->to), HOST(done->from), done->count);
    if (done->kind == FILL) memset(HOST(done->to), done->value, done->count);
    if (done->kind == CALL) done->function(done->data);
    on->now_ms += done->kind == KERNEL ? number("FAKE_CUDA_KERNEL_NS", 10000) / 1e6 : done->kind == CALL ? 0 : 1e-3 + done->count / 1024 / 1e6;
}
static CUresult enqueue(stream *on, op done) {
    NEEDS_CONTEXT;
    on = on ? on : &usual;
    if (!on->capturing) { work(on, &done); return OK; }
    op *kept = malloc(sizeof *kept);
    *kept = done, kept->next = NULL;
    *on->capturing->last = kept, on->capturing->last = &kept->next;
    return OK;
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t count, stream *on) { return enqueue(on, (op){.kind = COPY, .to = to, .from = (CUdeviceptr)(uintptr_t)from, .count = count}); }
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t count, stream *on) { return enqueue(on, (op){.kind = COPY, .to = (CUdeviceptr)(uintptr_t)to, .from = from, .count = count}); }
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t count, stream *on) { return enqueue(on, (op){.kind = COPY, .to = to, .from = from, .count = count}); }
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, stream *on) { return enqueue(on, (op){.kind = FILL, .to = to, .value = value, .count = count}); }
CUresult cuLaunchHostFunc(stream *on, void (*function)(void *), void *data) { return enqueue(on, (op){.kind = CALL, .function = function, .data = data}); }
CUresult cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, stream *on, void **arguments, void **extra) {
    (void)function, (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)arguments, (void)extra;
    return enqueue(on, (op){.kind = KERNEL});
}
/* The older way to launch, which is pycuda's. */
CUresult cuFuncSetBlockShape(void *function, int x, int y, int z) { (void)function, (void)x, (void)y, (void)z; return OK; }
CUresult cuFuncSetSharedSize(void *function, unsigned bytes) { (void)function, (void)bytes; return OK; }
CUresult cuParamSetSize(void *function, unsigned bytes) { (void)function, (void)bytes; return OK; }
CUresult cuParamSetv(void *function, int offset, void *value, unsigned bytes) { (void)function, (void)offset, (void)value, (void)bytes; return OK; }
CUresult cuLaunchGrid(void *function, int width, int height) { (void)function, (void)width, (void)height; return enqueue(NULL, (op){.kind = KERNEL}); }
CUresult cuLaunchGridAsync(void *function, int width, int height, stream *on) { (void)function, (void)width, (void)height; return enqueue(on, (op){.kind = KERNEL}); }
CUresult cuModuleLoadDataEx(void **module, const void *image, unsigned count, void *options, void **values) { NEEDS_CONTEXT; (void)image, (void)count, (void)options, (void)values; *module = malloc(1), live++; return OK; }
CUresult cuModuleLoadData(void **module, const void *image) { return cuModuleLoadDataEx(module, image, 0, NULL, NULL); }
CUresult cuModuleGetFunction(void **function, void *module, const char *name) { (void)name; *function = module; return OK; }
CUresult cuModuleUnload(void *module) { free(module), live--; return OK; }
CUresult cuFuncSetCacheConfig(void *function, int config) { (void)function, (void)config; return OK; }
CUresult cuFuncGetAttribute(int *value, int attribute, void *function) { (void)attribute, (void)function; *value = 0; return OK; }

/* Streams, events, graphs */

CUresult cuStreamCreateWithPriority(stream **made, unsigned flags, int priority) { NEEDS_CONTEXT; (void)flags, (void)priority; *made = calloc(1, sizeof **made), live++; return OK; }
CUresult cuStreamCreate(stream **made, unsigned flags) { return cuStreamCreateWithPriority(made, flags, 0); }
CUresult cuStreamDestroy_v2(stream *gone) { free(gone), live--; return OK; }
CUresult cuStreamSynchronize(stream *on) { NEEDS_CONTEXT; return on && on->capturing ? CAPTURE_UNSUPPORTED : OK; }
CUresult cuStreamQuery(stream *on) { (void)on; NEEDS_CONTEXT; return OK; }
CUresult cuStreamWaitEvent(stream *on, event *of, unsigned flags) { (void)flags; on = on ? on : &usual; if (of->at_ms > on->now_ms) on->now_ms = of->at_ms; return OK; }
CUresult cuEventCreate(event **made, unsigned flags) { NEEDS_CONTEXT; (void)flags; *made = calloc(1, sizeof **made), live++; return OK; }
CUresult cuEventDestroy_v2(event *gone) { free(gone), live--; return OK; }
CUresult cuEventRecord(event *at, stream *on) { NEEDS_CONTEXT; at->at_ms = (on ? on : &usual)->now_ms, at->recorded = 1; return OK; }
CUresult cuEventSynchronize(event *at) { (void)at; NEEDS_CONTEXT; return OK; }
CUresult cuEventQuery(event *at) { (void)at; NEEDS_CONTEXT; return OK; }
CUresult cuEventElapsedTime(float *ms, event *begin, event *end) { if (!begin->recorded || !end->recorded) return NOT_READY; *ms = (float)(end->at_ms - begin->at_ms); return OK; }
CUresult cuEventElapsedTime_v2(float *ms, event *begin, event *end) { return cuEventElapsedTime(ms, begin, end); }

CUresult cuStreamBeginCapture_v2(stream *on, int mode) {
    NEEDS_CONTEXT;
    (void)mode;
    if (!on || on->capturing) return CAPTURE_UNSUPPORTED;
    on->capturing = calloc(1, sizeof(graph)), live++;
    on->capturing->last = &on->capturing->first;
    return OK;
}
CUresult cuStreamEndCapture(stream *on, graph **made) { if (!on->capturing) return CAPTURE_UNSUPPORTED; *made = on->capturing, on->capturing = NULL; return OK; }
CUresult cuStreamIsCapturing(stream *on, int *status) { *status = on && on->capturing ? 1 : 0; return OK; }
CUresult cuGraphInstantiateWithFlags(graph **made, graph *of, unsigned long long flags) {
    (void)flags;
    graph *copy = calloc(1, sizeof *copy);
    copy->last = &copy->first, live++;
    for (op *each = of->first; each; each = each->next) {
        op *kept = malloc(sizeof *kept);
        *kept = *each, kept->next = NULL;
        *copy->last = kept, copy->last = &kept->next;
    }
    *made = copy;
    return OK;
}
CUresult cuGraphLaunch(graph *launched, stream *on) { NEEDS_CONTEXT; for (op *each = launched->first; each; each = each->next) work(on ? on : &usual, each); return OK; }
CUresult cuGraphDestroy(graph *gone) {
    for (op *each = gone->first, *next; each; each = next) next = each->next, free(each);
    free(gone), live--;
    return OK;
}
CUresult cuGraphExecDestroy(graph *gone) { return cuGraphDestroy(gone); }

/* How NVIDIA's bindings find the rest: the newest version of a name that there is. */

CUresult cuGetProcAddress_v2(const char *symbol, void **address, int version, uint64_t flags, int *status) {
    char name[128];
    (void)version, (void)flags;
    Dl_info here;
    dladdr((void *)cuInit, &here);
    void *self = dlopen(here.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    snprintf(name, sizeof name, "%s_v2", symbol);
    *address = dlsym(self, name);
    if (!*address) *address = dlsym(self, symbol);
    if (status) *status = *address ? 0 : 1;
    return *address ? OK : NOT_FOUND;
}
CUresult cuGetProcAddress(const char *symbol, void **address, int version, uint64_t flags) { return cuGetProcAddress_v2(symbol, address, version, flags, NULL); }
