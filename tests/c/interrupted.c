/* Sends signals that interrupt each wait of a call: interrupted MODULE
 *
 * Prints "ready", signs after a line on standard input, and prints "interrupted" after enough
 * interruptions. */
#include "host.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t waiting, signals;

static void interrupt(int number)
{
    (void)number;
    if (waiting && ++signals == 50 && write(1, "interrupted\n", 12) != 12)
        _exit(2);
}

int main(int count, char **arguments)
{
    struct sigaction action = {.sa_handler = interrupt}; /* without SA_RESTART */
    struct itimerval each = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    CK_OBJECT_HANDLE public, private;
    unsigned char signature[64];
    CK_ULONG length = sizeof signature;

    HOLDS(count == 2);
    load(arguments[1]);
    OK(sigaction(SIGALRM, &action, NULL));
    OK(setitimer(ITIMER_REAL, &each, NULL));
    OK(call->C_Initialize(NULL));
    CK_SESSION_HANDLE session = opened(0), own = opened(1);
    CK_OBJECT_HANDLE key = first(session, CKO_PRIVATE_KEY);
    OK(signed_by(session, key, signature, &length));
    OK(generated(own, &public, &private));
    OK(signed_by(own, private, signature, &length));
    HOLDS(write(1, "ready\n", 6) == 6);
    char line;
    while (read(0, &line, 1) != 1)
        ;
    waiting = 1;
    OK(signed_by(session, key, signature, &length));
    HOLDS(signals >= 50);
    OK(call->C_Finalize(NULL));
    /* At the end LeakSanitizer starts a thread, which a signal would end. */
    OK(setitimer(ITIMER_REAL, &never, NULL));
    return 0;
}
