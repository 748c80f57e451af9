-- Which files count. One row per segment and day of its records, and per closed day.
-- @state: pending (part files not counted yet, the journal is), sealed (part files counted, the journal not), kept (as sealed, the journal's segment is gone), closed (the day's whole files count, part files do not)
-- @day: UTC day in whose folders the records are; NULL for a segment without calls and corrections
-- @segment: Journal segment; NULL for a closed day
-- @calls: Number of calls in the file below calls/
-- @list_cost_nano: Sum of their list cost as first recorded, whole nano-USD
-- @corrections: Number of corrections in the file below corrections/
-- @corrections_nano: Sum of the list cost that they state, whole nano-USD
-- @late_calls: Number of calls that were recorded on an earlier day, which was closed already
FROM read_csv(
  'lake:lake_state.csv',
  header = true, auto_detect = false, delim = ',', quote = '"', nullstr = '',
  null_padding = true, -- a state from before there were corrections has five columns
  columns = {
    state: 'VARCHAR', day: 'DATE', segment: 'VARCHAR', calls: 'BIGINT', list_cost_nano: 'HUGEINT',
    corrections: 'BIGINT', corrections_nano: 'HUGEINT', late_calls: 'BIGINT'
  }
)
