/* Shows the memory that objects need: heap MODULE SLOT. Reads all objects of the slot, and
 * prints the number of objects and the number of heap bytes in use. */
#include "host.h"
#include <malloc.h>

int main(int count, char **arguments)
{
    CK_OBJECT_HANDLE objects[256];
    CK_ULONG found, all = 0;
    HOLDS(count == 3);
    load(arguments[1]);
    OK(call->C_Initialize(NULL));
    CK_SESSION_HANDLE session = opened(atoi(arguments[2]));
    OK(call->C_FindObjectsInit(session, NULL, 0));
    do {
        OK(call->C_FindObjects(session, objects, COUNT(objects), &found));
        all += found;
    } while (found);
    OK(call->C_FindObjectsFinal(session));
    printf("%lu %zu\n", all, mallinfo2().uordblks);
    return 0;
}
