"""Who a node is and why it is a member: keys, certificates, join tickets."""
