-- KEYS: gate. Returns its text if it is open.
return is_open(KEYS[1])
