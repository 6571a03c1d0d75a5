/* Unloads the module without C_Finalize and loads it again: reloaded MODULE
 *
 * Prints the code of the second C_Initialize, whether the earlier session still exists, and
 * whether the library stayed mapped. */
#include "host.h"

int main(int count, char **arguments)
{
    CK_SESSION_INFO info;
    HOLDS(count == 2);
    void *library = load(arguments[1]);
    OK(call->C_Initialize(NULL));
    CK_SESSION_HANDLE session = 0;
    call->C_OpenSession(0, CKF_SERIAL_SESSION, NULL, NULL, &session);
    OK(dlclose(library));
    int stayed = dlopen(arguments[1], RTLD_NOW | RTLD_NOLOAD) != NULL;
    load(arguments[1]);
    CK_RV again = call->C_Initialize(NULL);
    CK_RV known = call->C_GetSessionInfo(session, &info);
    OK(call->C_Finalize(NULL));
    OK(call->C_Initialize(NULL));
    OK(call->C_Finalize(NULL));
    printf("%lx %d %d\n", again, known == CKR_OK, stayed);
    return 0;
}
