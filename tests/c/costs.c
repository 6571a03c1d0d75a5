/* Shows the cost of a start and of signatures: costs MODULE SIGNATURES. Reads all objects of
 * slot 0, makes this number of signatures with its key, and ends. */
#include "host.h"

int main(int count, char **arguments)
{
    CK_OBJECT_HANDLE objects[64], key;
    CK_ULONG found, length;
    unsigned char signature[64];
    HOLDS(count == 3);
    load(arguments[1]);
    OK(call->C_Initialize(NULL));
    CK_SESSION_HANDLE session = opened(0);
    OK(call->C_FindObjectsInit(session, NULL, 0));
    OK(call->C_FindObjects(session, objects, COUNT(objects), &found));
    OK(call->C_FindObjectsFinal(session));
    key = first(session, CKO_PRIVATE_KEY);
    for (int left = atoi(arguments[2]); left > 0; left--) {
        length = sizeof signature;
        OK(signed_by(session, key, signature, &length));
    }
    OK(call->C_Finalize(NULL));
    return 0;
}
