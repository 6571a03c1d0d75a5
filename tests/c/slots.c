/* Prints the number of slots, and the number of slots with a token: slots MODULE */
#include "host.h"

int main(int count, char **arguments)
{
    CK_ULONG all, present;
    HOLDS(count == 2);
    load(arguments[1]);
    OK(call->C_Initialize(NULL));
    OK(call->C_GetSlotList(CK_FALSE, NULL, &all));
    OK(call->C_GetSlotList(CK_TRUE, NULL, &present));
    OK(call->C_Finalize(NULL));
    printf("%lu %lu\n", all, present);
    return 0;
}
