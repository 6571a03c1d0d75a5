/* Prints all data that a program can read through the module, a line for each field: seen MODULE */
#include "host.h"

static void field(const char *where, const char *name, const unsigned char *bytes, CK_ULONG count)
{
    printf("%s/%s ", where, name);
    for (CK_ULONG n = 0; n < count; n++)
        printf("%02x", bytes[n]);
    printf("\n");
}

#define FIELD(where, from, name) field(where, #name, (const unsigned char *)&(from).name, sizeof(from).name)

static void attributes(CK_SESSION_HANDLE session, const char *token, CK_OBJECT_HANDLE object,
                       CK_ULONG number)
{
    static const CK_ATTRIBUTE_TYPE ranges[][2] = {
        {0, 0x700},
        {0x40000000, 0x40000700},
        {CKA_VENDOR_DEFINED | 0x44450000, CKA_VENDOR_DEFINED | 0x44450040},
    };
    CK_OBJECT_CLASS class;
    CK_ATTRIBUTE asked = {CKA_CLASS, &class, sizeof class};
    unsigned char label[64] = {0};
    CK_ATTRIBUTE named = {CKA_LABEL, label, sizeof label - 1};
    char where[128], name[32];

    OK(call->C_GetAttributeValue(session, object, &asked, 1));
    OK(call->C_GetAttributeValue(session, object, &named, 1));
    // Objects that describe the token itself have no label.
    if (!label[0])
        snprintf((char *)label, sizeof label, "%lu", number);
    snprintf(where, sizeof where, "%s/object/%lx/%s", token, class, label);
    for (size_t n = 0; n < COUNT(ranges); n++) {
        for (CK_ATTRIBUTE_TYPE type = ranges[n][0]; type < ranges[n][1]; type++) {
            unsigned char value[8192];
            CK_ATTRIBUTE one = {type, value, sizeof value};
            CK_RV code = call->C_GetAttributeValue(session, object, &one, 1);
            if (code == CKR_ATTRIBUTE_TYPE_INVALID || code == CKR_ATTRIBUTE_SENSITIVE)
                continue;
            OK(code);
            snprintf(name, sizeof name, "%lx", type);
            field(where, name, value, one.ulValueLen);
        }
    }
}

int main(int count, char **arguments)
{
    CK_SLOT_ID slots[32];
    CK_ULONG found = COUNT(slots);
    CK_INFO about;

    HOLDS(count == 2);
    load(arguments[1]);
    OK(call->C_Initialize(NULL));
    OK(call->C_GetInfo(&about));
    FIELD("module", about, manufacturerID);
    FIELD("module", about, libraryDescription);
    OK(call->C_GetSlotList(CK_FALSE, slots, &found));
    printf("module/slots %02lx\n", found);
    for (CK_ULONG n = 0; n < found; n++) {
        CK_SLOT_INFO slot;
        CK_TOKEN_INFO token;
        CK_SESSION_HANDLE session;
        CK_OBJECT_HANDLE objects[64];
        CK_ULONG many = 0;
        char where[32], holder[40];

        snprintf(where, sizeof where, "slot/%lx", slots[n]);
        snprintf(holder, sizeof holder, "%s/token", where);
        OK(call->C_GetSlotInfo(slots[n], &slot));
        FIELD(where, slot, slotDescription);
        FIELD(where, slot, manufacturerID);
        FIELD(where, slot, hardwareVersion);
        FIELD(where, slot, firmwareVersion);
        FIELD(where, slot, flags);
        if (!(slot.flags & CKF_TOKEN_PRESENT))
            continue;
        OK(call->C_GetTokenInfo(slots[n], &token));
        FIELD(holder, token, label);
        FIELD(holder, token, manufacturerID);
        FIELD(holder, token, model);
        FIELD(holder, token, serialNumber);
        FIELD(holder, token, flags);
        FIELD(holder, token, hardwareVersion);
        FIELD(holder, token, firmwareVersion);
        FIELD(holder, token, utcTime);
        OK(call->C_OpenSession(slots[n], CKF_SERIAL_SESSION, NULL, NULL, &session));
        OK(call->C_FindObjectsInit(session, NULL, 0));
        OK(call->C_FindObjects(session, objects, COUNT(objects), &many));
        OK(call->C_FindObjectsFinal(session));
        for (CK_ULONG one = 0; one < many; one++)
            attributes(session, where, objects[one], one);
    }
    OK(call->C_Finalize(NULL));
    return 0;
}
