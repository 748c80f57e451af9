-- Which files count. One row per segment and day of its calls, and per closed day.
-- @state: pending (part file not counted yet, the journal is), sealed (part file counted, the journal not), kept (as sealed, the journal's segment is gone), closed (the day's one file counts, part files do not)
-- @day: UTC day in whose folder the calls are; NULL for a segment without calls
-- @segment: Journal segment; NULL for a closed day
-- @calls: Number of calls in the file
-- @list_cost_nano: Sum of their list cost, whole nano-USD
FROM read_csv(
  'lake:lake_state.csv',
  header = true, auto_detect = false, delim = ',', quote = '"', nullstr = '',
  columns = {state: 'VARCHAR', day: 'DATE', segment: 'VARCHAR', calls: 'BIGINT', list_cost_nano: 'HUGEINT'}
)
