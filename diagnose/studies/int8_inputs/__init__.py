"""What rounding the inputs of linears to int8 costs each block, as servers of W8A8 do."""
