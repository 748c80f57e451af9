-- Calls of a file that are in the ledger already.
SELECT call_id
FROM read_json($incoming, format = 'newline_delimited', columns = {call_id: 'VARCHAR'}) SEMI JOIN calls USING (call_id)
