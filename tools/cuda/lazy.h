/* SPDX-License-Identifier: MPL-2.0
 * The part of tools/cuda/lazy.sh that is the same for every library. The generated file that includes
 * this says which files the library may be, and which functions it has; behind it comes a `door` for
 * each of them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>

/* Where each door leads; zero until it has been used once. */
__attribute__((used)) static void *targets[COUNT] __asm__("targets");

static long absent(void) { return ABSENT; }
static long unknown(void) { return UNKNOWN; }
static long zero(void) { return 0; }
static const char *no_library(void) { return "the library was not found"; }
static int why(int error, const char **text) {
    (void)error;
    *text = "no NVIDIA driver on this machine: libcuda.so.1 was not found";
    return 0;
}

static void *library(void) {
    for (const char *const *file = files; *file; file++) {
        void *found = dlopen(*file, RTLD_NOW | RTLD_LOCAL);
        if (found) return found;
    }
    return 0;
}

/* Several threads may come here at once: all of them find the same. */
__attribute__((used, noinline)) static void *look_up(unsigned index) __asm__("look_up");
static void *look_up(unsigned index) {
    void *open = library(), *target = open ? dlsym(open, functions[index].name) : 0;
    if (!target) switch (functions[index].kind) {
        case TEXT: target = (void *)no_library; break;
        case NUMBER: target = (void *)zero; break;
        case REASON: target = open ? (void *)unknown : (void *)why; break;
        case STATUS: target = open ? (void *)unknown : (void *)absent; break;
    }
    __atomic_store_n(&targets[index], target, __ATOMIC_RELEASE);
    return target;
}

/* A door jumps to its target with everything in place that its caller has put into registers and onto
 * the stack. The first time it saves the registers that arguments travel in and looks the target up. */
__asm__(
    ".text\n"
    ".macro door name, index\n"
    ".globl \\name\n"
    ".hidden \\name\n"
    ".type \\name, @function\n"
    "\\name:\n"
    "    endbr64\n"
    "    mov targets+8*\\index(%rip), %r11\n"
    "    test %r11, %r11\n"
    "    jz 1f\n"
    "    jmp *%r11\n"
    "1:  mov $\\index, %r11d\n"
    "    jmp first_call\n"
    ".size \\name, . - \\name\n"
    ".endm\n"
    ".type first_call, @function\n"
    "first_call:\n"
    "    push %rbp\n"
    "    mov %rsp, %rbp\n"
    "    push %rax\n"
    "    push %rdi\n"
    "    push %rsi\n"
    "    push %rdx\n"
    "    push %rcx\n"
    "    push %r8\n"
    "    push %r9\n"
    "    sub $136, %rsp\n"
    "    movups %xmm0, (%rsp)\n"
    "    movups %xmm1, 16(%rsp)\n"
    "    movups %xmm2, 32(%rsp)\n"
    "    movups %xmm3, 48(%rsp)\n"
    "    movups %xmm4, 64(%rsp)\n"
    "    movups %xmm5, 80(%rsp)\n"
    "    movups %xmm6, 96(%rsp)\n"
    "    movups %xmm7, 112(%rsp)\n"
    "    mov %r11d, %edi\n"
    "    call look_up\n"
    "    mov %rax, %r11\n"
    "    movups (%rsp), %xmm0\n"
    "    movups 16(%rsp), %xmm1\n"
    "    movups 32(%rsp), %xmm2\n"
    "    movups 48(%rsp), %xmm3\n"
    "    movups 64(%rsp), %xmm4\n"
    "    movups 80(%rsp), %xmm5\n"
    "    movups 96(%rsp), %xmm6\n"
    "    movups 112(%rsp), %xmm7\n"
    "    add $136, %rsp\n"
    "    pop %r9\n"
    "    pop %r8\n"
    "    pop %rcx\n"
    "    pop %rdx\n"
    "    pop %rsi\n"
    "    pop %rdi\n"
    "    pop %rax\n"
    "    pop %rbp\n"
    "    jmp *%r11\n"
    ".size first_call, . - first_call\n");
