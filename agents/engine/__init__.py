"""Updates and decisions of fully connected networks as compiled code, a member at a time."""
