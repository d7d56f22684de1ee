// Switching from one stack to another: what a fiber is made of.
#pragma once
#include <stddef.h>

// A context is the address of what a stack that does not run has saved on itself.
//
// switch_context saves the running one in *from and goes on with `to`; it returns when another call
// goes on with what it saved. new_context makes one that begins with entry(), which never returns.

#if defined(__x86_64__) && !defined(CUVEE_UCONTEXT)
// Inline, and left by a jump: so the processor's guesses of where functions return to stay right.
// Where this goes on is saved below the red zone of the function that it is in, with rbx and rbp;
// what else a function must leave as it was is named as changed, and saved by the compiler.
inline __attribute__((always_inline)) void switch_context(void** from, void* to) {
  asm volatile(
      "leaq -128(%%rsp), %%rsp\n pushq %%rbp\n pushq %%rbx\n"
      "leaq 1f(%%rip), %%rax\n pushq %%rax\n"
      "movq %%rsp, (%%rdi)\n movq %%rsi, %%rsp\n"
      "popq %%rax\n jmpq *%%rax\n"
      "1: popq %%rbx\n popq %%rbp\n leaq 128(%%rsp), %%rsp\n"
      : "+D"(from), "+S"(to)
      :
      : "rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1",
        "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
        "xmm13", "xmm14", "xmm15", "memory", "cc");
}

// The entry, and its own return address: zero, where a trace of the stack ends.
inline void* new_context(char* top, void (*entry)()) {
  void** context = reinterpret_cast<void**>(top) - 2;
  context[0] = reinterpret_cast<void*>(entry);
  context[1] = nullptr;
  return context;
}

#elif defined(__aarch64__) && !defined(CUVEE_UCONTEXT)
// Saves what a function must leave as it was: x19 to x30, d8 to d15 and the stack's address.
extern "C" void cuvee_switch_context(void** from, void* to);
#define CUVEE_SWITCH_CONTEXT                                                              \
  "sub sp, sp, #160\n"                                                                    \
  "stp x19, x20, [sp]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n"              \
  "stp x25, x26, [sp, #48]\n stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"         \
  "stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n"                                    \
  "stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"                                 \
  "mov x9, sp\n str x9, [x0]\n mov sp, x1\n"                                              \
  "ldp x19, x20, [sp]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n"              \
  "ldp x25, x26, [sp, #48]\n ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n"         \
  "ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n"                                    \
  "ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"                                 \
  "add sp, sp, #160\n ret\n"
// A new context's first instructions: the entry, in x19, with no address to return to, where a
// trace of the stack ends.
extern "C" void cuvee_begin_context();
#ifdef __APPLE__
#define CUVEE_FUNCTION(name) ".text\n.p2align 4\n.globl _" name "\n_" name ":\n"
#else
#define CUVEE_FUNCTION(name) ".text\n.p2align 4\n.globl " name "\n" name ":\n"
#endif
asm(CUVEE_FUNCTION("cuvee_switch_context") CUVEE_SWITCH_CONTEXT
    CUVEE_FUNCTION("cuvee_begin_context") "mov x30, xzr\n br x19\n");

inline void switch_context(void** from, void* to) { cuvee_switch_context(from, to); }

inline void* new_context(char* top, void (*entry)()) {
  void** context = reinterpret_cast<void**>(top) - 20;
  for (int i = 0; i < 20; i++) context[i] = nullptr;
  context[0] = reinterpret_cast<void*>(entry);                // x19
  context[11] = reinterpret_cast<void*>(cuvee_begin_context);  // x30
  return context;
}

#else
// Any other processor: the system's own, which is slower by a call of the kernel.
#include <ucontext.h>

inline void switch_context(void** from, void* to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}

inline void* new_context(char* top, void (*entry)()) {
  constexpr size_t REACH = 16 << 10;  // Of the entry's stack, below what is saved.
  ucontext_t* context = reinterpret_cast<ucontext_t*>(top - (sizeof(ucontext_t) + 63) / 64 * 64);
  getcontext(context);
  context->uc_stack.ss_sp = reinterpret_cast<char*>(context) - REACH;
  context->uc_stack.ss_size = REACH;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}
#endif
